package kernel

import (
	"strings"
	"testing"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestShape: a link is held back on both sides, which is seen after a restart, changed,
// and taken back.
func TestShape(t *testing.T) {
	m := newMachine(t)
	links := netspec.State{}
	for _, o := range []netspec.Object{
		netspec.Namespace{NS: "c1"},
		netspec.Link{Name: "isbr", Kind: netspec.Bridge},
		netspec.Link{Name: "isv1", Kind: netspec.Veth, Master: "isbr", PeerNS: "c1", Peer: "eth0"},
	} {
		links.Add(o)
	}
	shaped := func(rate uint64) netspec.State {
		s := netspec.State{}
		s.Add(netspec.Shape{Link: "isv1", Rate: rate, Burst: 40000})
		s.Add(netspec.Shape{NS: "c1", Link: "eth0", Rate: 10 * rate, Burst: 123457})
		return s
	}
	apply := func(have, want netspec.State) {
		t.Helper()
		if err := reconcile.Apply(t.Context(), m, reconcile.Diff(have, want)); err != nil {
			t.Fatal(err)
		}
	}
	seen := func(want netspec.State) {
		t.Helper()
		have, err := m.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := netspec.State{}
		for _, o := range have {
			if _, ok := o.(netspec.Shape); ok {
				got.Add(o)
			}
		}
		if reconcile.Dump(got) != reconcile.Dump(want) {
			t.Errorf("got\n%swant\n%s", reconcile.Dump(got), reconcile.Dump(want))
		}
	}
	apply(nil, links)
	apply(nil, shaped(1_250_000))
	if got := m.host.Run("tc", "qdisc", "show", "dev", "isv1"); !strings.Contains(got, "rate 10Mbit") || !strings.Contains(got, "burst 40000b") {
		t.Error(got)
	}
	seen(shaped(1_250_000))
	m.restart()
	seen(shaped(1_250_000))
	const fast = 10_000_000_000 // 80 Gbit/s: more than a number of 32 bits
	apply(shaped(1_250_000), shaped(fast))
	seen(shaped(fast))
	m.host.Run("tc", "qdisc", "del", "dev", "isv1", "root")
	apply(shaped(fast), nil)
	seen(nil)
	if got := m.host.Run("tc", "qdisc", "show", "dev", "isv1"); strings.Contains(got, "tbf") {
		t.Error(got)
	}
	m.host.Run("tc", "qdisc", "add", "dev", "isv1", "root", "tbf", "rate", "1mbit", "burst", "32k", "latency", "10ms")
	m.restart()
	seen(nil) // somebody else's
}
