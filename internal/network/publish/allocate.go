package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// Holder holds host ports against other programs until they are released.
type Holder interface {
	// Hold fails with class Conflict when another program has the port.
	Hold(proto string, addr netip.AddrPort) (Held, error)
	// Check is Hold for a whole row of ports, and holds none of them.
	Check(m Mapping) error
	// Close waits until nothing is forwarded any more. All Held are closed.
	Close()
}

// Held is a port that is held. Forward says what becomes of what arrives at its
// socket. Both may be called at any time.
type Held interface {
	Forward(Way)
	Close() error
}

// Way is where to forward to, and from whom; an invalid address refuses all.
type Way struct {
	To   netip.AddrPort
	From []netip.Prefix // with Limited, nobody else
	// Limited: only From, and what comes from this host.
	Limited bool
}

// Where ports are chosen from when none is asked for, and the host does not say:
// the kernel's default of ip_local_port_range.
const (
	ephemeralFirst = 32768
	ephemeralLast  = 60999
)

// holdLimit is the longest row of ports that are held by a socket each. A file
// descriptor for each port of longer ones would run out: they are looked up in
// the kernel's list of sockets when they are claimed. So are ports of an
// interface, whose addresses may not be there yet.
const holdLimit = 1024

// Table keeps who has which host port. Safe for concurrent use.
type Table struct {
	Holder Holder // nil: ports are not held
	// Sysctl reads a setting of the host, named below net. Nil: it has the defaults.
	Sysctl func(name string) (string, error)

	mu   sync.Mutex
	used map[slot][]*claim
	next uint16
}

// slot is 64 ports of a protocol in a row. A claim is in every slot that it has
// ports in, so that a row costs little and a port is looked for among few.
type slot struct {
	proto string
	n     uint16
}

const slotBits = 6

func slots(m Mapping) func(yield func(slot) bool) {
	return func(yield func(slot) bool) {
		for n := m.HostPort >> slotBits; n <= m.last()>>slotBits; n++ {
			if !yield(slot{m.Proto, n}) {
				return
			}
		}
	}
}

type claim struct {
	Mapping
	owner   string
	direct  bool   // no port of the host is taken: others may have the same
	held    []Held // of each port, or nothing
	refused error  // why one of held is missing
}

func (c *claim) part(first, last uint16) *claim {
	out := &claim{Mapping: c.Mapping.part(first, last), owner: c.owner, direct: c.direct, refused: c.refused}
	if c.held != nil {
		out.held = c.held[first-c.HostPort : last-c.HostPort+1]
	}
	return out
}

// Claim settles requests for owner: all or none. nameOf is for the error of
// whoever wants the same port later.
func (t *Table) Claim(owner string, reqs []Request, nameOf func(owner string) string) ([]Mapping, error) {
	s, err := t.Change(owner, nil, reqs, false, nameOf)
	if err != nil {
		return nil, err
	}
	s.Commit()
	return s.Got, nil
}

// Restore claims again what the records say owner has. A port that cannot be
// held is claimed all the same: the container is running. direct tells of which
// ports none of the host is taken.
func (t *Table) Restore(owner string, ms []Mapping, direct func(Mapping) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, m := range ms {
		c := &claim{Mapping: m, owner: owner, direct: direct(m)}
		if !c.direct && t.holds(m) {
			c.held = make([]Held, m.Count)
			t.hold(c)
		}
		errs = append(errs, c.refused)
		t.put(c)
	}
	return errors.Join(errs...)
}

// hold holds what of c is not held yet.
func (t *Table) hold(c *claim) {
	var errs []error
	for i := range c.held {
		if c.held[i] == nil {
			h, err := t.Holder.Hold(c.Proto, netip.AddrPortFrom(c.HostIP, c.HostPort+uint16(i)))
			c.held[i], errs = h, append(errs, err)
		}
	}
	c.refused = errors.Join(errs...)
}

// HoldAgain tries once more to hold what could not be held, and returns whose
// ports these are: their sockets are to be told where they lead.
func (t *Table) HoldAgain() (owners []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.unheld() {
		t.hold(c)
		owners = append(owners, c.owner)
	}
	return owners
}

// Unheld is a port, or several in a row, that is not held against other programs.
type Unheld struct {
	Owner string
	Mapping
	Err error // what keeps it from being held
}

// Unheld are the ports that could not be held when they were restored, in order.
func (t *Table) Unheld() (out []Unheld) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.unheld() {
		out = append(out, Unheld{c.owner, c.Mapping, c.refused})
	}
	slices.SortFunc(out, func(a, b Unheld) int { return compare(a.Mapping, b.Mapping) })
	return out
}

func (t *Table) unheld() (out []*claim) {
	for s, cs := range t.used {
		for _, c := range cs {
			if c.refused != nil && s.n == c.HostPort>>slotBits { // once, though it is in several slots
				out = append(out, c)
			}
		}
	}
	return out
}

// Release gives ports back.
func (t *Table) Release(owner string, ms []Mapping) {
	if s, err := t.Change(owner, ms, nil, false, nil); err == nil {
		s.Commit()
	}
}

// Forward says where what arrives at m's sockets is to go: to for the first
// port, and so on. An invalid address refuses it.
func (t *Table) Forward(owner string, m Mapping, to netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	way := Way{}
	way.From, way.Limited = m.Sources()
	for _, c := range t.find(m) {
		if c.owner != owner || !c.sameSide(m) || c.held == nil {
			continue
		}
		first, last, _ := c.overlap(m.HostPort, m.last())
		for p := int(first); p <= int(last); p++ {
			if h := c.held[uint16(p)-c.HostPort]; h != nil {
				way.To = netip.AddrPortFrom(to, m.ContainerPort+uint16(p)-m.HostPort)
				h.Forward(way)
			}
		}
	}
}

// Close lets all sockets go and waits until nothing is forwarded any more.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, cs := range t.used {
		for _, c := range cs {
			closeAll(c.held)
		}
	}
	if t.used = nil; t.Holder != nil {
		t.Holder.Close()
	}
}

// anyPort is where ports are chosen from when none is asked for: where the kernel
// does, so that one who keeps ports for himself says so once.
func (t *Table) anyPort() (first, last uint16) {
	if t.Sysctl != nil {
		text, err := t.Sysctl("ipv4/ip_local_port_range")
		_, serr := fmt.Sscan(text, &first, &last)
		if err == nil && serr == nil && first > 0 && first <= last {
			return first, last
		}
	}
	return ephemeralFirst, ephemeralLast
}

// Direct reports whether none of the host's ports is taken for m of owner.
func (t *Table) Direct(owner string, m Mapping) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.at(&claim{Mapping: m, owner: owner, direct: true})
	return c != nil && c.direct
}

// Turn makes those ports of owner direct of which direct says so, and takes the
// host's for the others: all or none, to be committed like a Change.
func (t *Table) Turn(owner string, ms []Mapping, direct func(Mapping) bool, nameOf func(owner string) string) (*Settlement, error) {
	var drop []Mapping
	var reqs []Request
	for _, m := range ms {
		if d := direct(m); d != t.Direct(owner, m) {
			r := m.request()
			r.Direct4, r.Direct6 = d, d
			drop, reqs = append(drop, m), append(reqs, r)
		}
	}
	return t.Change(owner, drop, reqs, false, nameOf)
}

// KeepSources gives owner's requests that name a port and no allow-list the one that the
// port has now, whoever has it: to take a port over must not open it to others.
// An address that the port is not on yet gets the list of another.
func (t *Table) KeepSources(owner string, reqs []Request) (out []Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range reqs {
		if r.From != "" || !r.fixed() {
			out = append(out, r)
			continue
		}
		for _, ip := range r.HostIPs {
			var rows []Mapping
			for m := range Each([]Mapping{r.mapping(ip, r.First)}) {
				m.From = t.sources(&claim{Mapping: m, owner: owner, direct: r.direct(ip)}, r.HostIPs)
				rows = append(rows, m)
			}
			for _, m := range Join(rows) {
				out = append(out, m.request())
			}
		}
	}
	return out
}

// sources is the allow-list of the single port that is wanted, or what it has on
// other addresses.
func (t *Table) sources(want *claim, others []netip.Addr) string {
	if c := t.at(want); c != nil {
		return c.From
	}
	for _, want.HostIP = range others {
		if c := t.at(want); c != nil && c.From != "" {
			return c.From
		}
	}
	return ""
}

// at is the claim that has the first port of the wanted ones, at the very same
// address or interface.
func (t *Table) at(want *claim) (found *claim) {
	for _, c := range t.find(want.part(want.HostPort, want.HostPort).Mapping) {
		if c.sameSide(want.Mapping) && c.meets(want) && (found == nil || c.owner == want.owner) {
			found = c
		}
	}
	return found
}

// find are the claims that have one of m's ports, on whatever address.
func (t *Table) find(m Mapping) []*claim {
	var out []*claim
	for s := range slots(m) {
		for _, c := range t.used[s] {
			first, _, ok := c.overlap(m.HostPort, m.last())
			if ok && s.n == first>>slotBits { // once, though it is in several slots
				out = append(out, c)
			}
		}
	}
	return out
}

func (t *Table) put(c *claim) {
	if t.used == nil {
		t.used = map[slot][]*claim{}
	}
	for s := range slots(c.Mapping) {
		t.used[s] = append(t.used[s], c)
	}
}

func (t *Table) drop(c *claim) {
	for s := range slots(c.Mapping) {
		var keep []*claim
		for _, o := range t.used[s] {
			if o != c {
				keep = append(keep, o)
			}
		}
		if t.used[s] = keep; len(keep) == 0 {
			delete(t.used, s)
		}
	}
}

// holds: every port of m gets a socket.
func (t *Table) holds(m Mapping) bool {
	return t.Holder != nil && m.Iface == "" && m.Count <= holdLimit
}

func closeAll(held []Held) {
	for _, h := range held {
		if h != nil {
			_ = h.Close() // nothing depends on it
		}
	}
}

// collide reports whether one port cannot be had on both sides. An interface goes
// before an address that it has, so those can be had both.
func collide(a, b Mapping) bool {
	switch {
	case a.HostIP.Is4() != b.HostIP.Is4():
		return false
	case a.Iface != "" && b.Iface != "":
		return a.Iface == b.Iface
	case a.Iface != "":
		return b.HostIP.IsUnspecified()
	case b.Iface != "":
		return a.HostIP.IsUnspecified()
	}
	return a.HostIP == b.HostIP || a.HostIP.IsUnspecified() || b.HostIP.IsUnspecified()
}

// refusal is the error for the owner who wants what c has.
func (c *claim) refusal(owner string, m Mapping, nameOf func(string) string) error {
	first, _, _ := c.overlap(m.HostPort, m.last())
	who, hint := "container "+nameOf(c.owner)+" has", ""
	if c.owner == owner {
		who = "the container itself has"
		if c.sameSide(m) {
			hint = " (hint: --replace changes where it leads and who may connect)"
		}
	}
	return fmt.Errorf("Bind for %s failed: port is already allocated: %s %s/%s%s: %w",
		m.part(first, first).where(), who, c.Mapping.part(first, first).where(), c.Proto, hint, errdefs.ErrConflict)
}

// twice is refusal of who asks for a port that he has just been given.
func (c *claim) twice(m Mapping) error {
	first, _, _ := c.overlap(m.HostPort, m.last())
	return fmt.Errorf("Bind for %s failed: port is already allocated: it is asked for twice, also as %s/%s: %w",
		m.part(first, first).where(), c.Mapping.part(first, first).where(), c.Proto, errdefs.ErrConflict)
}
