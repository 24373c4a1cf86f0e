package kernel

import (
	"strings"
	"testing"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestRules: rules and the tables that they lead to are made, seen by a Kernel
// that did not make them, repaired and removed; those of others stay.
func TestRules(t *testing.T) {
	m := newMachine(t)
	br := bridge(1, netspec.Segment{})
	c, ns := container(1, 1)
	c.Add(
		netspec.Rule{NS: ns, From: pfx("10.1.0.2/32"), Table: 73004, Priority: 7300},
		netspec.Rule{NS: ns, From: pfx("fd00:1::2/128"), Table: 73004, Priority: 7300},
		netspec.Route{NS: ns, Dst: pfx("0.0.0.0/0"), Via: ip("10.1.0.1"), Dev: "eth0", Table: 73004},
		netspec.Route{NS: ns, Dst: pfx("10.1.0.0/24"), Dev: "eth0", Table: 73004},
		netspec.Route{NS: ns, Dst: pfx("::/0"), Via: ip("fd00:1::1"), Dev: "eth0", Table: 73004},
		netspec.Route{NS: ns, Dst: pfx("fd00:1::/64"), Dev: "eth0", Table: 73004},
	)
	want := merge(br, c)
	m.apply(want)
	w := m.in(ns)
	w.IP(`rule add from 10.9.9.9 table 5
		route add 10.9.0.0/24 dev eth0 table 5`)
	if out := w.Run("ip", "rule"); !strings.Contains(out, "7300:\tfrom 10.1.0.2 lookup 73004") {
		t.Errorf("ip rule:\n%s", out)
	}
	for what, spoil := range map[string]string{
		"nothing": "", "a rule is gone": "rule del from 10.1.0.2 table 73004", "IPv6": "-6 rule del from fd00:1::2 table 73004",
		"a route is gone": "route del default table 73004", "a rule too many": "rule add from 10.1.0.2 table 77 priority 3 protocol 73",
	} {
		w.IP(spoil)
		m.restart()
		if _, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := m.observe(); !got.Equal(want) {
			t.Errorf("%s: missing:\n%s\ntoo much:\n%s", what, reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
		}
	}
	bare, _ := container(1, 1)
	m.change(c, bare)
	if out := w.Run("ip", "rule") + w.Run("ip", "-6", "rule") + w.Run("ip", "route", "show", "table", "all"); strings.Contains(out, "7300") {
		t.Errorf("left behind:\n%s", out)
	}
	if out := w.Run("ip", "rule"); !strings.Contains(out, "10.9.9.9") {
		t.Errorf("the container's own rule is gone:\n%s", out)
	}
}
