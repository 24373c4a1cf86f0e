package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// wire joins the machine by eth9 to a switch, in a namespace of its own, where a
// neighbour has 10.9.0.9 and fd00:9::9.
func (m *machine) wire() (neighbour kerneltest.NS) {
	m.t.Helper()
	neighbour = kerneltest.NewNS(m.t)
	m.host.IP("link add eth9 type veth peer name port9")
	m.host.Run("ip", "link", "set", "port9", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), neighbour.File.Fd()))
	neighbour.IP(`link add lan type bridge
		link set port9 master lan up
		addr add 10.9.0.9/24 dev lan
		addr add fd00:9::9/64 dev lan nodad
		link set lan up`)
	m.host.IP("link set eth9 up")
	return neighbour
}

// onLAN is a container with an interface on eth9.
func onLAN(i int, l netspec.LAN) netspec.State {
	ns := netspec.NS(fmt.Sprint("lan", i))
	l.NS, l.Name = ns, "eth0"
	if l.Parent == "" {
		l.Parent = "eth9"
	}
	if l.MTU == 0 {
		l.MTU = 1500
	}
	if l.Kind == netspec.Macvlan && l.Mode != "passthru" {
		l.MAC = netspec.MAC{2, 9, 9, 9, 9, byte(i)}
	}
	return state(netspec.Namespace{NS: ns}, l,
		netspec.Addr{NS: ns, Link: "eth0", Prefix: pfx(fmt.Sprintf("10.9.0.%d/24", 100+i))},
		netspec.Addr{NS: ns, Link: "eth0", Prefix: pfx(fmt.Sprintf("fd00:9::%d/64", 100+i))},
		netspec.Neigh{NS: ns, Link: "eth0", Addr: ip("10.9.0.77"), MAC: netspec.MAC{2, 7}},
		netspec.Route{NS: ns, Dst: pfx("0.0.0.0/0"), Via: ip("10.9.0.9"), Dev: "eth0"})
}

// try applies, or skips the test where the kernel knows no such link.
func (m *machine) try(s netspec.State) {
	m.t.Helper()
	err := reconcile.Apply(m.t.Context(), m.Kernel, reconcile.Diff(nil, s))
	if probe.NotSupported(err) {
		m.t.Skip(err)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) is(want netspec.State) {
	m.t.Helper()
	if got := m.observe(); !got.Equal(want) {
		m.t.Errorf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
}

// names are the host's links.
func (m *machine) names() (out string) {
	for l := range strings.Lines(m.host.Run("ip", "-o", "link")) {
		out += strings.Fields(l)[1] + " "
	}
	return out
}

// reached : a connection from a namespace of the test gets to a container.
func (m *machine) reached(from kerneltest.NS, ns netspec.NS, at string) {
	m.t.Helper()
	l, err := m.ListenTCP(m.t.Context(), ns, netip.MustParseAddrPort(at))
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	from.Do(func() error {
		c, err := net.DialTimeout("tcp", at, 10*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// TestLAN: every kind and mode is on the wire at once, reads back as it was wished,
// also for another process, and goes without a trace.
func TestLAN(t *testing.T) {
	t.Parallel()
	for _, l := range []netspec.LAN{
		{Kind: netspec.Macvlan, Mode: "bridge"}, {Kind: netspec.Macvlan, Mode: "private"}, {Kind: netspec.Macvlan, Mode: "vepa"},
		{Kind: netspec.Macvlan, Mode: "passthru"}, {Kind: netspec.Macvlan, Mode: "bridge", MTU: 1400},
		{Kind: netspec.IPvlan, Mode: "l2", Flag: "bridge"}, {Kind: netspec.IPvlan, Mode: "l2", Flag: "private"}, {Kind: netspec.IPvlan, Mode: "l2", Flag: "vepa"},
		{Kind: netspec.IPvlan, Mode: "l3", Flag: "bridge"}, {Kind: netspec.IPvlan, Mode: "l3s", Flag: "bridge"},
	} {
		t.Run(fmt.Sprint(l.Kind, l.Mode, l.Flag, l.MTU), func(t *testing.T) {
			m := newMachine(t)
			neighbour := m.wire()
			neighbour.IP("route add 10.9.0.101/32 dev lan") // l3 answers no ARP from others: a router is told
			before := m.names()
			want := onLAN(1, l)
			m.try(want)
			m.is(want)
			m.restart()
			m.is(want)
			m.apply(want) // again
			m.is(want)
			if !strings.HasPrefix(l.Mode, "l3") {
				m.reached(neighbour, "lan1", "10.9.0.101:80")
				m.reached(neighbour, "lan1", "[fd00:9::101]:80")
			}
			m.remove(want)
			m.is(netspec.State{})
			if after := m.names(); after != before {
				t.Errorf("left behind:\n%s\nbefore\n%s", after, before)
			}
		})
	}
}

// TestLANAgain: a container that ends and comes again has its address at once.
func TestLANAgain(t *testing.T) {
	m := newMachine(t)
	m.wire()
	for _, mode := range []string{"bridge", "passthru"} {
		c := onLAN(1, netspec.LAN{Kind: netspec.Macvlan, Mode: mode})
		for range 3 {
			m.apply(c)
			held := m.in("lan1") // a process that stays
			m.is(c)
			m.remove(c)
			defer held.Close()
		}
	}
}

// TestLANRefused: what cannot be is told in words, and leaves nothing behind.
func TestLANRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.wire()
	first := onLAN(1, netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge"})
	m.apply(first)
	m.host.IP(`link add br9 type bridge
		link add port8 type veth peer name other
		link set port8 master br9`)
	for text, c := range map[string]struct {
		lan netspec.LAN
		is  func(error) bool
	}{
		"passthru takes it alone":                {netspec.LAN{Kind: netspec.Macvlan, Mode: "passthru"}, errdefs.IsConflict},
		"parent interface port8 is taken":        {netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge", Parent: "port8"}, errdefs.IsConflict},
		"parent interface eth7 is not there":     {netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge", Parent: "eth7"}, errdefs.IsUnavailable},
		"kind ipvtap (module ipvtap)":            {netspec.LAN{Kind: "ipvtap", Parent: "other"}, probe.NotSupported},
		"has the MAC address 020909090901":       {netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge", MAC: netspec.MAC{1}}, errdefs.IsConflict},
		"make link eth0 on lo: invalid argument": {netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge", Parent: "lo"}, func(error) bool { return true }},
	} {
		second := onLAN(2, c.lan)
		if strings.Contains(text, "MAC") {
			l := second[netspec.LAN{NS: "lan2", Name: "eth0"}.Key()].(netspec.LAN)
			l.MAC = netspec.MAC{2, 9, 9, 9, 9, 1}
			second[l.Key()] = l
		}
		err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, second))
		if err == nil || !c.is(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
		m.is(first)
	}
}

// TestParents: VLANs, also one on another, and dummies come and go; what somebody
// else made stays.
func TestParents(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]netspec.State{
		"vlan":  state(netspec.VLAN{Name: "eth9.50", Parent: "eth9", ID: 50}),
		"two":   state(netspec.VLAN{Name: "eth9.10", Parent: "eth9", ID: 10}, netspec.VLAN{Name: "eth9.10.20", Parent: "eth9.10", ID: 20}),
		"dummy": state(netspec.Dummy{Name: "dm-0123456789ab"}),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.wire()
			before := m.names()
			m.try(want)
			m.apply(want)
			m.is(want)
			m.restart()
			m.is(want)
			m.host.IP("link set eth9 down")
			m.is(want) // a VLAN is down with its parent
			m.remove(want)
			m.host.IP("link set eth9 up")
			if after := m.names(); after != before {
				t.Errorf("left behind:\n%s\nbefore\n%s", after, before)
			}
			for _, o := range want {
				m.host.Run("ip", "link", "add", o.Key().ID, "type", "bridge")
			}
			if err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, want)); !errdefs.IsAlreadyExists(err) && !errdefs.IsUnavailable(err) {
				t.Errorf("over somebody else's: %v", err)
			}
			m.remove(want)
			for _, o := range want {
				m.host.Run("ip", "link", "show", o.Key().ID)
			}
		})
	}
}

// TestNotSupported: a kind that the kernel has not is told by its module.
func TestNotSupported(t *testing.T) {
	m := newMachine(t)
	m.wire()
	c := onLAN(1, netspec.LAN{Kind: "nonesuch"})
	err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, c))
	var not *probe.NotSupportedError
	if !errors.As(err, &not) || !strings.Contains(err.Error(), "module nonesuch") {
		t.Error(err)
	}
	m.is(netspec.State{})
}

// TestLANMoves: when the wire of a parent comes back, perhaps at another place, the LAN
// is told where its containers are.
func TestLANMoves(t *testing.T) {
	m := newMachine(t)
	neighbour := m.wire()
	c := onLAN(1, netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge"})
	c.Add(netspec.Announce{NS: "lan1", Link: "eth0", Times: 1})
	m.apply(c)
	if _, err := m.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first announcement is over", func() bool { m.announcer.wg.Wait(); return true })
	for _, a := range []string{"10.9.0.101", "fd00:9::101"} { // extern_learn: kept when the machine's table is full of other tests' neighbours
		neighbour.Run("ip", "neigh", "replace", a, "dev", "lan", "lladdr", "02:00:00:00:00:99", "nud", "reachable", "extern_learn")
	}
	neighbour.IP("link set port9 down")
	// The kernel tells of it once in a second: of a shorter loss nobody hears.
	eventually(t, "the loss is told", func() bool { return strings.Contains(m.host.Run("ip", "link", "show", "eth9"), "state DOWN") })
	neighbour.IP("link set port9 up")
	eventually(t, "both addresses known", func() bool { return strings.Count(neighbour.Run("ip", "neigh"), "02:09:09:09:09:01") == 2 })
}

// TestLANWatch: what becomes of a parent is told, and it stays known by the name that it
// was used by.
func TestLANWatch(t *testing.T) {
	m := newMachine(t)
	m.wire()
	c := onLAN(1, netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge"})
	m.apply(c)
	ch, err := m.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.watched(ch, []harm{
		{"ip link set eth9 down", ofPlans, ""},
		{"ip link set eth9 name wire0", ofPlans, ""},
		{"ip link set wire0 up", ofPlans, ""},
	})
	m.is(c)
	f, err := m.Facts(t.Context())
	if err != nil || len(f.Parents) != 2 || f.Parents[0].Name != "eth9" || f.Parents[0].Now != "wire0" || f.Parents[1].Name != "wire0" || !f.Parents[0].Up {
		t.Errorf("%+v, %v", f.Parents, err)
	}
	m.apply(onLAN(2, netspec.LAN{Kind: netspec.Macvlan, Mode: "bridge"})) // on the renamed one
	m.watched(ch, []harm{{"ip link del wire0", ofPlans, ""}, {"ip link add eth9 type bridge", ofPlans, ""}})
}
