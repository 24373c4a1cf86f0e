// Package nft holds our one nftables table: which traffic may pass, and where
// published ports go. README.md draws the way of a packet, table.nft is the
// fixed part of the table.
//
// The chains are fixed; what changes at run time are elements of sets and maps.
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

// Table is our table in one namespace. Its methods may be called by several
// goroutines.
type Table struct {
	Name string

	mu    sync.Mutex
	conn  *nlmsg.Conn
	ready bool // the fixed part was seen to be right
	// written: a batch under the generation that was read before it went
	// through, so nobody else can have come between.
	written bool
	segs    map[netspec.Segment]struct{} // they share elements, so the others must be known when one goes
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

// PortID is how notifications name our socket.
func (t *Table) PortID() uint32 { return t.conn.PortID() }

// Close frees the socket; the table stays.
func (t *Table) Close() error { return t.conn.Close() }

// op is one element to add or to delete, for changes[change].
type op struct {
	change int
	del    bool
	e      element
}

// Apply makes changes of Segments and Publishes, all or none. When err is not
// nil, changes[failed] is the first to blame.
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
		ops, segs := t.ops(changes)
		if failed, err = t.write(ops); err == nil {
			t.segs = segs
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
// and taken by another in one batch.
func (t *Table) ops(changes []reconcile.Change) ([]op, map[netspec.Segment]struct{}) {
	var ops []op
	segs := map[netspec.Segment]struct{}{}
	for s := range t.segs {
		segs[s] = struct{}{}
	}
	for i, c := range changes {
		if _, ok := cmp.Or(c.New, c.Old).(netspec.Segment); ok {
			ops = append(ops, segmentOps(segs, i, c)...)
			continue
		}
		if p, ok := c.Old.(netspec.Publish); ok {
			ops = appendOps(ops, i, true, publishElements(p))
		}
		if p, ok := c.New.(netspec.Publish); ok {
			ops = appendOps(ops, i, false, publishElements(p))
		}
	}
	slices.SortStableFunc(ops, func(a, b op) int { return order(a) - order(b) })
	return ops, segs
}

func order(o op) int {
	if o.del {
		return 0
	}
	return 1
}

func appendOps(ops []op, i int, del bool, es []element) []op {
	for _, e := range es {
		ops = append(ops, op{i, del, e})
	}
	return ops
}

// segmentOps moves segs over c. Elements that another segment needs stay.
func segmentOps(segs map[netspec.Segment]struct{}, i int, c reconcile.Change) (ops []op) {
	if s, ok := c.Old.(netspec.Segment); ok {
		delete(segs, s)
	}
	if s, ok := c.New.(netspec.Segment); ok {
		segs[s] = struct{}{}
		ops = appendOps(ops, i, false, segmentElements(s))
	}
	if s, ok := c.Old.(netspec.Segment); ok {
		need := needed(segs)
		for _, e := range segmentElements(s) {
			if _, ok := need[e]; !ok {
				ops = append(ops, op{i, true, e})
			}
		}
	}
	return ops
}

func needed(segs map[netspec.Segment]struct{}) elements {
	es := elements{}
	for s := range segs {
		for _, e := range segmentElements(s) {
			es[e] = struct{}{}
		}
	}
	return es
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
			msgs[i] = t.elementMessage(o)
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
			out = append(out, op{o.change, true, o.e}, o)
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

// Read returns the Segments and Publishes in force. When the fixed part of the
// table is not as it should be there are none, and the next Apply makes it anew.
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
		es, err := t.elements()
		if err != nil {
			return err
		}
		t.ready = true
		segs, pubs := objects(es)
		t.remember(segs)
		for _, x := range segs {
			s.Add(x)
		}
		for _, x := range pubs {
			s.Add(x)
		}
		return nil
	})
	return s, err
}

func (t *Table) remember(segs []netspec.Segment) {
	t.segs = map[netspec.Segment]struct{}{}
	for _, x := range segs {
		t.segs[x] = struct{}{}
	}
}

// ensure makes the fixed part of the table what it should be. A table of
// another version, or one that somebody changed, is replaced in one batch with
// all elements that can be understood: no connection notices.
func (t *Table) ensure() error {
	if t.ready {
		return nil
	}
	err := t.atOneTime(func(gen uint32) error {
		ok, err := t.check()
		if err != nil {
			return err
		}
		es, err := t.elements()
		if err != nil {
			return err
		}
		segs, pubs := objects(es)
		t.remember(segs)
		if ok {
			return nil
		}
		return t.replace(gen, segs, pubs)
	})
	if err != nil {
		return fmt.Errorf("set up nftables table %s: %w", t.Name, err)
	}
	t.ready = true
	return nil
}

func (t *Table) replace(gen uint32, segs []netspec.Segment, pubs []netspec.Publish) error {
	exists, _, err := t.table()
	if err != nil {
		return err
	}
	var msgs []nlmsg.Message
	if exists {
		msgs = append(msgs, t.message(unix.NFT_MSG_DELTABLE, 0, t.attrs(unix.NFTA_TABLE_NAME)))
	}
	msgs = append(msgs, t.fixed()...)
	for e := range needed(setOf(segs)) {
		msgs = append(msgs, t.elementMessage(op{e: e}))
	}
	for _, p := range pubs {
		for _, e := range publishElements(p) {
			msgs = append(msgs, t.elementMessage(op{e: e}))
		}
	}
	errs, err := t.batch(gen, msgs)
	t.written = err == nil && len(errs) == 0
	for i := range msgs {
		if errs[i] != nil {
			return fmt.Errorf("message %d (type %#x): %w", i, msgs[i].Type, errs[i])
		}
	}
	return err
}

func setOf(segs []netspec.Segment) map[netspec.Segment]struct{} {
	m := map[netspec.Segment]struct{}{}
	for _, s := range segs {
		m[s] = struct{}{}
	}
	return m
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
	t.ready, t.segs = false, nil
	errs, err := t.batch(0, []nlmsg.Message{t.message(unix.NFT_MSG_DELTABLE, 0, t.attrs(unix.NFTA_TABLE_NAME))})
	if err != nil {
		return err
	}
	if err := errs[0]; err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table %s: %w", t.Name, err)
	}
	return nil
}

// comments are those of a chain's rules, by which it is known again.
func comments(c chain) string {
	var b strings.Builder
	for _, r := range c.rules {
		b.WriteString(r.comment + "\n")
	}
	return b.String()
}
