package kernel

import (
	"strings"
	"testing"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestTrunk: a veth with both ends on the host joins two bridges; it is seen as
// one object by a Kernel that did not make it, and what somebody does to either
// end is put right.
func TestTrunk(t *testing.T) {
	m := newMachine(t)
	m.foreign()
	want := merge(bridge(1, netspec.Segment{}), state(
		netspec.Link{Name: "isleaf", Kind: netspec.Bridge, MTU: 1500, MAC: netspec.MAC{2, 9}},
		netspec.Link{Name: "istrunk", Kind: netspec.Veth, MTU: 1500, MAC: netspec.MAC{2, 8}, Master: "isbr1", Isolated: true,
			Peer: "ispeer", PeerMAC: netspec.MAC{2, 7}, PeerMaster: "isleaf"}))
	m.apply(want)
	for what, spoil := range map[string]string{
		"nothing":                   "",
		"the end is down":           "link set istrunk down",
		"the peer is down":          "link set ispeer down",
		"the peer left its bridge":  "link set ispeer nomaster",
		"the end left its bridge":   "link set istrunk nomaster",
		"the peer is on another":    "link set ispeer master docker0",
		"the end is not isolated":   "link set istrunk type bridge_slave isolated off",
		"the peer is isolated":      "link set ispeer type bridge_slave isolated on",
		"the trunk is gone":         "link del ispeer",
		"the leaf is gone":          "link del isleaf",
		"the peer's address is odd": "link set ispeer address 02:00:00:00:00:77",
	} {
		m.host.IP(spoil)
		m.restart()
		changes, err := reconcile.Sync(t.Context(), m.Kernel, want)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, c := range changes {
			if _, sysctl := c.New.(netspec.Sysctl); spoil == "" && !sysctl { // those it cannot know after a restart
				t.Errorf("a trunk that is as it should be: %v", c)
			}
		}
		if got := m.observe(); !got.Equal(want) {
			t.Errorf("%s: missing:\n%s\ntoo much:\n%s", what, reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
		}
	}
	m.remove(want)
	if out := m.host.Run("ip", "-o", "link"); strings.Contains(out, "istrunk") || strings.Contains(out, "ispeer") || strings.Contains(out, "isleaf") {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestChosenName: a bridge with a name that the user chose is ours by its group
// alone: a Kernel that did not make it keeps it, and removes it. One of somebody
// else with that name is left alone.
func TestChosenName(t *testing.T) {
	m := newMachine(t)
	br := state(netspec.Link{Name: "br0", Kind: netspec.Bridge, MTU: 1500, MAC: netspec.MAC{2, 9}}, netspec.Addr{Link: "br0", Prefix: pfx("10.7.0.1/24")})
	m.apply(br)
	m.restart()
	if _, err := reconcile.Sync(t.Context(), m.Kernel, br); err != nil {
		t.Error(err)
	}
	if changes, err := reconcile.Sync(t.Context(), m.Kernel, br); err != nil || len(changes) > 0 {
		t.Errorf("once more: %v, %v", changes, err)
	}
	m.remove(br)
	if out, err := m.host.Try("ip", "link", "show", "br0"); err == nil {
		t.Errorf("left behind:\n%s", out)
	}
	m.host.IP("link add br0 type bridge")
	if err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, br)); err == nil {
		t.Error("took a foreign bridge")
	}
	m.remove(br)
	m.host.Run("ip", "link", "show", "br0")
}

// TestForeignPort: a link of somebody else with the name of one of ours, a port of
// somebody else's bridge, is not touched when ours cannot be made.
func TestForeignPort(t *testing.T) {
	m := newMachine(t)
	m.host.IP(`link add docker0 type bridge
		link add isv1-1 type veth peer name other
		link set isv1-1 master docker0`)
	before := m.host.Run("ip", "-d", "link", "show", "dev", "isv1-1")
	m.apply(bridge(1, netspec.Segment{}))
	c, _ := container(1, 1)
	if err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, c)); err == nil {
		t.Error("took a foreign link")
	}
	if after := m.host.Run("ip", "-d", "link", "show", "dev", "isv1-1"); after != before {
		t.Errorf("changed to\n%s\nfrom\n%s", after, before)
	}
}
