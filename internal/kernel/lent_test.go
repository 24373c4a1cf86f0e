package kernel

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// joined is a namespace of somebody else with a veth of ours.
func (m *machine) joined(ns kerneltest.NS) (netspec.NS, netspec.State) {
	m.t.Helper()
	name, err := m.Lent(ns.File)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.Borrow(name, ns.File); err != nil {
		m.t.Fatal(err)
	}
	s := netspec.State{}
	for _, o := range []netspec.Object{
		netspec.Namespace{NS: name},
		netspec.Link{Name: "isbr", Kind: netspec.Bridge},
		netspec.Link{Name: "isv1", Kind: netspec.Veth, Master: "isbr", PeerNS: name, Peer: "eth0"},
		netspec.Addr{NS: name, Link: "eth0", Prefix: pfx("10.1.0.2/24")},
		netspec.Route{NS: name, Dst: pfx("0.0.0.0/0"), Via: ip("10.1.0.1"), Dev: "eth0"},
	} {
		s.Add(o)
	}
	if err := reconcile.Apply(m.t.Context(), m, reconcile.Diff(nil, s)); err != nil {
		m.t.Fatal(err)
	}
	return name, s
}

// TestLentNamespace: what is ours in it comes and goes, and what is there of others
// stays, as the namespace itself does.
func TestLentNamespace(t *testing.T) {
	m := newMachine(t)
	ns := kerneltest.NewNS(t)
	ns.Run("ip", "link", "set", "lo", "down")
	ns.Run("ip", "link", "add", "other0", "type", "bridge")
	name, want := m.joined(ns)
	if got := ns.Run("ip", "-o", "addr"); !strings.Contains(got, "10.1.0.2/24") || !strings.Contains(got, "127.0.0.1") {
		t.Error(got)
	}
	m.restart()
	have, err := m.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range want {
		if _, ok := have[k]; !ok {
			t.Errorf("not seen after a restart: %v", k)
		}
	}
	if err := reconcile.Apply(t.Context(), m, reconcile.Diff(have, nil)); err != nil {
		t.Fatal(err)
	}
	if got := ns.Run("ip", "-o", "link"); strings.Contains(got, "eth0") || !strings.Contains(got, "other0") {
		t.Error(got)
	}
	if m.Held(name) {
		t.Error("the namespace is still held")
	}
}

// TestLentIsNotMade: a lent namespace that is gone cannot be made again.
func TestLentIsNotMade(t *testing.T) {
	m := newMachine(t)
	n := netspec.Namespace{NS: netspec.Lent(7)}
	if err := reconcile.Apply(t.Context(), m, []reconcile.Change{{Key: n.Key(), New: n}}); err == nil {
		t.Error("it was made")
	}
	if m.Held(n.NS) {
		t.Error("it is there")
	}
}

// TestNotToBeLent: the host's namespace and those of our containers.
func TestNotToBeLent(t *testing.T) {
	m := newMachine(t)
	n := netspec.Namespace{NS: "c1"}
	if err := reconcile.Apply(t.Context(), m, []reconcile.Change{{Key: n.Key(), New: n}}); err != nil {
		t.Fatal(err)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			m.restart()
			if _, err := m.Observe(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		own, err := m.Kernel.open("c1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Lent(own); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a container's: %v", err)
		}
		own.Close()
		if _, err := m.Lent(m.Kernel.host); !errdefs.IsInvalidArgument(err) {
			t.Errorf("the host's: %v", err)
		}
	}
}

func TestInside(t *testing.T) {
	m := newMachine(t)
	ns := kerneltest.NewNS(t)
	ns.Run("ip", "link", "add", "other0", "type", "bridge")
	ns.Run("ip", "link", "set", "other0", "up")
	ns.Run("ip", "addr", "add", "10.9.0.2/24", "dev", "other0")
	if there, out, err := m.Taken(ns.File, "other0"); !there || out || err != nil {
		t.Errorf("%v %v %v", there, out, err)
	}
	ns.Run("ip", "route", "add", "default", "via", "10.9.0.1")
	if there, out, err := m.Taken(ns.File, "eth0"); there || !out || err != nil {
		t.Errorf("%v %v %v", there, out, err)
	}
	name, _ := m.joined(ns)
	in, err := m.Inside(name, "eth0")
	if err != nil || !in.Up || in.MTU == 0 || in.MAC == (netspec.MAC{}) || !slices.Equal(in.Addrs, []netip.Prefix{pfx("10.1.0.2/24")}) {
		t.Errorf("%+v %v", in, err)
	}
	if _, err := m.Inside(name, "none0"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := m.Inside(netspec.Lent(1), "eth0"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}
