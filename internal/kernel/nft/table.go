// Package nft holds our nftables table: which traffic may pass, and where
// published ports go. README.md draws the way of a packet, table.nft is the
// fixed part of the table. To the kernel it is two tables of one name: of the
// family "inet" for packets that are routed, and of "bridge" for what containers
// send, also to each other.
//
// The chains are fixed, but for two that come and go with tunnels; what changes at run
// time are elements of sets and maps.
// So a change costs the same whatever the table holds, and all changes of a
// batch are in force together or not at all.
//
// Traps. A map's element cannot be changed, only removed and added, in one
// batch. Deleting an element that is not there fails the whole batch: such
// deletions are left out and the batch is sent again. Elements travel one to a
// message and unacknowledged but for the last: 10,000 of them need no
// chunks, and an error names its element. Sets with intervals (rows of ports)
// are copied by the kernel on every change, hence the other maps for
// single ports.
package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// DefaultMark is the bit of a packet's mark that says to the guards of our
// bridges that our chains have passed it.
const DefaultMark = 1 << 27

// Table is our table in one namespace. Its methods may be called by several
// goroutines. The exported fields are to be set before the first use.
type Table struct {
	Name     string
	Mark     uint32 // 0: DefaultMark
	Group    uint32 // of our devices
	Prefix   string // of their names
	NoBridge bool   // the kernel's nftables know no bridges: there are no Sources

	mu        sync.Mutex
	conn      *nlmsg.Conn
	ready     bool // the fixed part was seen to be right
	reference reference
	// written: a batch under the generation that was read before it went
	// through, so nobody else can have come between.
	written bool
	tunnels elements           // that are in force
	guarded bool               // the chains of tunnels are there
	refs    map[element]int    // how many objects need an element that objects may share
	stray   map[string]element // what was found and belongs to no object
}

// Open opens the table of ns; nil is the calling thread's. Nothing is made
// until something is applied.
func Open(ns *os.File, name string) (*Table, error) {
	t := &Table{Name: name}
	open := func() (err error) { t.conn, err = nlmsg.Open(unix.NETLINK_NETFILTER); return err }
	if ns != nil {
		return t, netns.Visit(ns, open)
	}
	return t, open()
}

// KnowsBridges reports whether nftables can look at what bridges forward.
func KnowsBridges() bool {
	err := netns.Scratch(func() error {
		t, err := Open(nil, "probe")
		if err != nil {
			return err
		}
		defer t.Close()
		c := chain{bridge, "probe", "filter", prerouting, bridgeDstnat, nil}
		return t.all([]message{
			t.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.attrs(bridge, unix.NFTA_TABLE_NAME)),
			t.chainMessage(c),
			t.ruleMessage(c, rule{"", arp}), // "meta" is a module of its own for bridges
		})
	})
	return err == nil
}

// GuardMark is the bit that says that our chains have passed a packet.
func (t *Table) GuardMark() uint32 { return cmp.Or(t.Mark, DefaultMark) }

func (t *Table) marks() marks {
	return marks{t.GuardMark(), t.Group, t.Prefix + netspec.LeafBridge, t.Prefix + netspec.TunnelLink}
}

func (t *Table) families() []uint8 {
	if t.NoBridge {
		return []uint8{inet}
	}
	return []uint8{inet, bridge}
}

func (t *Table) has(family uint8) bool { return slices.Contains(t.families(), family) }

// elementsOf are those of o, without what this kernel has no set for.
func (t *Table) elementsOf(o netspec.Object) []element {
	if s, ok := o.(netspec.Stray); ok {
		return []element{t.stray[s.ID]}
	}
	return slices.DeleteFunc(elementsOf(o), func(e element) bool { return !t.has(tableOf[e.set]) })
}

// PortID is how notifications name our socket.
func (t *Table) PortID() uint32 { return t.conn.PortID() }

// Close frees the socket; the table stays.
func (t *Table) Close() error { return t.conn.Close() }

// op is one element to add or to delete, for changes[change]; or part of a chain.
type op struct {
	change int
	del    bool
	e      element
	chain  *message
}

// Apply makes changes of the objects that elements are made of, all or none.
// When err is not nil, changes[failed] is the first to blame.
func (t *Table) Apply(ctx context.Context, changes []reconcile.Change) (failed int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range 3 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := t.ensure(); err != nil {
			return 0, err
		}
		ops, delta := t.ops(changes)
		tunnels := t.tunnelsAfter(ops)
		if failed, err = t.write(t.guarding(ops, len(tunnels) > 0)); err == nil {
			t.count(delta)
			t.tunnels, t.guarded = tunnels, len(tunnels) > 0
			return 0, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ERESTART) {
			return failed, fmt.Errorf("nftables table %s: %w", t.Name, err)
		}
		t.ready = false // somebody removed the table, or part of it
	}
	return failed, fmt.Errorf("nftables table %s keeps changing under us: %w", t.Name, err)
}

// ops are the elements to delete, then those to add: a range may be given up
// and taken by another in one batch. An element that objects share is deleted
// when none needs it any more; delta is how the need changes.
func (t *Table) ops(changes []reconcile.Change) (ops []op, delta map[element]int) {
	delta = map[element]int{}
	for _, c := range changes {
		for _, e := range t.shared(c.Old) {
			delta[e]--
		}
		for _, e := range t.shared(c.New) {
			delta[e]++
		}
	}
	gone := elements{}
	for i, c := range changes {
		for _, e := range t.elementsOf(c.Old) {
			if _, twice := gone[e]; !twice && t.refs[e]+delta[e] <= 0 {
				gone[e] = struct{}{}
				ops = append(ops, op{change: i, del: true, e: e})
			}
		}
		for _, e := range t.elementsOf(c.New) {
			ops = append(ops, op{change: i, e: e})
		}
	}
	slices.SortStableFunc(ops, func(a, b op) int { return order(a) - order(b) })
	return ops, delta
}

// shared are the elements of o, if other objects may have some of them too.
func (t *Table) shared(o netspec.Object) []element {
	if !shares(o) {
		return nil
	}
	return t.elementsOf(o)
}

// Allowed is the allow-list, as it is in force, of the port that a is about.
func (t *Table) Allowed(a netspec.Allow) (list []netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limited := allowElements(a)[0]
	for e := range t.refs {
		if kind := strings.TrimRight(e.set, "46"); kind != "allowed" && kind != "ifallowed" {
			continue
		}
		if o, _ := allowOf(nil, e, e.set[len(e.set)-1:]); allowElements(o.(netspec.Allow))[0] == limited {
			list = append(list, o.(netspec.Allow).From)
		}
	}
	return list
}

func (t *Table) count(delta map[element]int) {
	if t.refs == nil {
		t.refs = map[element]int{}
	}
	for e, n := range delta {
		if t.refs[e] += n; t.refs[e] <= 0 {
			delete(t.refs, e)
		}
	}
}

func order(o op) int {
	if o.del {
		return 0
	}
	return 1
}

// write sends ops as one batch. What stands in the way of idempotence is taken
// out of it (deleting what is not there) or put into it (deleting what is there
// with other data).
func (t *Table) write(ops []op) (failed int, err error) {
	for range 3 {
		if len(ops) == 0 {
			return 0, nil
		}
		msgs := make([]nlmsg.Message, len(ops))
		for i, o := range ops {
			msgs[i] = t.opMessage(o)
		}
		errs, err := t.batch(0, msgs)
		if err != nil {
			return ops[0].change, err
		}
		if len(errs) == 0 {
			return 0, nil
		}
		if ops, failed, err = t.mend(ops, errs); err != nil {
			return failed, err
		}
	}
	return ops[0].change, errors.New("elements keep changing under us")
}

// mend takes out of ops, or puts into it, what errs ask for; an error that it
// cannot mend it returns.
func (t *Table) mend(ops []op, errs map[int]error) (out []op, failed int, err error) {
	failed = -1
	for i, o := range ops {
		e := errs[i]
		switch {
		case e == nil:
			out = append(out, o)
		case o.del && errors.Is(e, unix.ENOENT):
		case !o.del && t.differs(o.e, e):
			out = append(out, op{change: o.change, del: true, e: o.e}, o)
		case failed < 0 || o.change < failed:
			failed, err = o.change, e
		}
	}
	return out, max(failed, 0), err
}

// differs reports whether e could not be added because it is there with other
// data. A row that overlaps another fails in the same way, and deleting it would
// delete the other one: so rows are looked at.
func (t *Table) differs(e element, err error) bool {
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
		return false
	}
	if e.end == "" {
		return e.data != ""
	}
	es, err := t.elements()
	if err != nil {
		return false // the first error is the one to tell
	}
	for have := range es {
		if have.id() == e.id() {
			return true
		}
	}
	return false
}

// Read returns what is in force. When the fixed part of the table is not as it
// should be nothing is, and the next Apply makes it anew.
func (t *Table) Read() (netspec.State, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = false
	s := netspec.State{}
	err := t.atOneTime(func(uint32) error {
		clear(s)
		ok, err := t.check()
		if err != nil || !ok {
			return err
		}
		objs, err := t.learn()
		if err != nil || t.unguarded() {
			return err
		}
		t.ready = true
		s.Add(objs...)
		for id := range t.stray {
			s.Add(netspec.Stray{ID: id})
		}
		return nil
	})
	return s, err
}

// learn reads the objects in force, and notes what they share and what is
// nobody's.
func (t *Table) learn() ([]netspec.Object, error) {
	es, err := t.elements()
	if err != nil {
		return nil, err
	}
	objs, stray := t.objects(es)
	t.refs, t.stray, t.tunnels = map[element]int{}, map[string]element{}, elements{}
	for e := range es {
		if e.isTunnel() {
			t.tunnels[e] = struct{}{}
		}
	}
	for _, o := range objs {
		for _, e := range t.shared(o) {
			t.refs[e]++
		}
	}
	for _, e := range stray {
		t.stray[fmt.Sprintf("%s %x %x", e.set, e.key, e.end)] = e
	}
	return objs, nil
}

// ensure makes the fixed part of the table what it should be. One that somebody
// changed, or that another version made, is replaced in one batch with all
// elements that can be understood: no connection notices.
func (t *Table) ensure() error {
	if t.ready {
		return nil
	}
	err := t.atOneTime(func(gen uint32) error {
		ok, err := t.check()
		if err != nil {
			return err
		}
		objs, err := t.learn()
		if err != nil || ok && !t.unguarded() {
			return err
		}
		return t.replace(gen, objs)
	})
	if err != nil {
		return fmt.Errorf("set up nftables table %s: %w", t.Name, err)
	}
	t.ready = true
	return nil
}

func (t *Table) replace(gen uint32, objs []netspec.Object) error {
	msgs, err := t.removals()
	if err != nil {
		return err
	}
	guarded := len(t.tunnels) > 0
	msgs = append(msgs, t.fixed(guarded)...)
	sent := elements{}
	for _, o := range objs { // in their order: an interval begins before it ends
		for _, e := range t.elementsOf(o) {
			if _, twice := sent[e]; !twice {
				sent[e] = struct{}{}
				msgs = append(msgs, t.elementMessage(op{e: e}))
			}
		}
	}
	errs, err := t.batch(gen, msgs)
	if t.written = err == nil && len(errs) == 0; t.written {
		t.stray, t.guarded = nil, guarded
	}
	for i := range msgs {
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", describe(msgs[i]), errs[i])
		}
	}
	return err
}

// removals delete what there is of the table.
func (t *Table) removals() (msgs []message, err error) {
	for _, f := range t.families() {
		exists, _, err := t.table(f)
		if err != nil {
			return nil, err
		}
		if exists {
			msgs = append(msgs, t.message(unix.NFT_MSG_DELTABLE, 0, t.attrs(f, unix.NFTA_TABLE_NAME)))
		}
	}
	return msgs, nil
}

// atOneTime runs fn, which reads several things, again until nobody changed
// anything meanwhile.
func (t *Table) atOneTime(fn func(gen uint32) error) error {
	for range 20 {
		t.written = false
		before, err := t.generation()
		if err != nil {
			return err
		}
		err = fn(before)
		if errors.Is(err, unix.ERESTART) || errors.Is(err, nlmsg.ErrInterrupted) {
			continue
		}
		if err != nil {
			return err
		}
		after, err := t.generation()
		if err != nil {
			return err
		}
		if after == before || t.written {
			return nil
		}
	}
	return nlmsg.ErrInterrupted
}

// Delete removes the table with all that is in it.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready, t.refs, t.stray = false, nil, nil
	msgs, err := t.removals()
	if err != nil || len(msgs) == 0 {
		return err
	}
	if err := t.all(msgs); err != nil {
		return fmt.Errorf("delete nftables table %s: %w", t.Name, err)
	}
	return nil
}
