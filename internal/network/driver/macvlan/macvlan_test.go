package macvlan_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/network"
	"isle/internal/network/driver/drivertest"
	"isle/internal/network/driver/macvlan"
)

var update = flag.Bool("update", false, "write the plans into testdata")

func TestPlan(t *testing.T) { drivertest.Plans(t, macvlan.Driver{}, *update) }

func TestConformance(t *testing.T) {
	drivertest.Run(t, macvlan.Driver{},
		map[string]string{"parent": "eth0"},
		map[string]string{"parent": "eth0", "macvlan_mode": "private"},
		map[string]string{"parent": "eth0", "macvlan_mode": "vepa", "com.docker.network.driver.mtu": "9000"},
		map[string]string{"parent": "eth0", "macvlan_mode": "passthru"},
		map[string]string{"parent": "eth0.50"},
		map[string]string{"parent": "eth0.50.7"},
		map[string]string{"parent": "eth7"},
	)
}

// TestRefused: what a network cannot be, by what is wrong with it.
func TestRefused(t *testing.T) {
	for text, c := range map[string]struct {
		opts     map[string]string
		internal bool
	}{
		"requested macvlan mode 'router' is not valid, 'bridge'": {map[string]string{"macvlan_mode": "router"}, false},
		"loopback interface is not a valid macvlan parent link":  {map[string]string{"parent": "lo"}, false},
		"option parent=a/b":                       {map[string]string{"parent": "a/b"}, false},
		"must be a number":                        {map[string]string{"com.docker.network.driver.mtu": "x"}, false},
		"must be at least 68":                     {map[string]string{"com.docker.network.driver.mtu": "12"}, false},
		"IPv6 needs at least 1280":                {map[string]string{"com.docker.network.driver.mtu": "1000"}, false},
		"isle.host_access=maybe: must be true":    {map[string]string{"isle.host_access": "maybe"}, false},
		"no parent to pass through":               {map[string]string{"macvlan_mode": "passthru"}, false},
		"are to be among themselves":              {map[string]string{"parent": "eth0", "isle.host_access": "true"}, true},
		"give -o parent":                          {map[string]string{"isle.host_access": "true"}, false},
		"has the parent for itself":               {map[string]string{"parent": "eth0", "macvlan_mode": "passthru", "isle.host_access": "true"}, false},
		"the switch sends back":                   {map[string]string{"parent": "eth0", "macvlan_mode": "vepa", "isle.host_access": "true"}, false},
		"private is to keep":                      {map[string]string{"parent": "eth0", "macvlan_mode": "private", "isle.host_access": "true"}, false},
		"container_iface_prefix=a b: invalid int": {map[string]string{"com.docker.network.container_iface_prefix": "a b"}, false},
	} {
		n := drivertest.Network(macvlan.Driver{}, c.opts, true, c.internal)
		if err := (macvlan.Driver{}).Validate(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	n := drivertest.Network(macvlan.Driver{}, map[string]string{"parent": "eth0"}, false, false)
	n.Pools = nil
	if err := (macvlan.Driver{}).Validate(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "ipv4 pool is empty") {
		t.Error(err)
	}
}

// TestBeside: who can be on one interface.
func TestBeside(t *testing.T) {
	net := func(driver string, opts ...string) network.Network {
		n := network.Network{Name: "there", Driver: driver, Options: map[string]string{"parent": "eth0"}}
		for _, o := range opts {
			k, v, _ := strings.Cut(o, "=")
			n.Options[k] = v
		}
		return n
	}
	for what, c := range map[string]struct {
		n, other network.Network
		text     string
	}{
		"two networks":         {net("macvlan"), net("macvlan", "macvlan_mode=private"), ""},
		"another parent":       {net("macvlan"), net("ipvlan", "parent=eth1"), ""},
		"a VLAN there":         {net("macvlan", "parent=eth0.5"), net("ipvlan"), ""},
		"the other kind":       {net("macvlan"), net("ipvlan"), "not both"},
		"passthru, the new":    {net("macvlan", "macvlan_mode=passthru"), net("macvlan"), "for itself"},
		"passthru, the other":  {net("macvlan"), net("macvlan", "macvlan_mode=passthru"), "for itself"},
		"a bridge":             {net("macvlan"), net("bridge"), ""},
		"none of them has any": {net("macvlan", "parent="), net("ipvlan", "parent="), ""},
	} {
		err := macvlan.Driver{}.Beside(c.n, c.other)
		if (err == nil) != (c.text == "") || err != nil && (!errdefs.IsConflict(err) || !strings.Contains(err.Error(), "network there is already using parent interface eth0") || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v, want %q", what, err, c.text)
		}
	}
}

// TestReady: what of the host keeps a container from a network, and how that is told.
func TestReady(t *testing.T) {
	host := network.Host{Parents: network.Parents([]network.Parent{
		{Name: "eth0", Up: true, Carrier: true}, {Name: "eth1", Up: true, Master: "br0"}, {Name: "eth2"}, {Name: "eth3", Now: "lan3", Up: true, Carrier: true},
	})}
	for _, c := range []struct {
		parent, mode string
		users        int
		is           func(error) bool
		text, uplink string
	}{
		{"eth0", "", 5, nil, "", "eth0: up"},
		{"eth0", "passthru", 0, nil, "", "eth0: up"},
		{"eth0", "passthru", 1, errdefs.IsConflict, "for itself, and there is one", "eth0: up"},
		{"eth0.7", "", 0, nil, "", "eth0.7: VLAN on eth0: up"},
		{"eth1", "", 0, errdefs.IsConflict, "a port of br0 (hint: -o parent=br0)", "eth1: up, but without carrier"},
		{"eth1.7", "", 0, nil, "", "eth1.7: VLAN on eth1: up, but without carrier"},
		{"eth2", "", 0, nil, "", "eth2: down"},
		{"eth3", "", 0, nil, "", "eth3: up, renamed to lan3"},
		{"eth9", "", 0, errdefs.IsUnavailable, "parent interface eth9 is not there", "eth9: missing: parent interface eth9 is not there: unavailable"},
		{"eth9.5", "", 0, errdefs.IsUnavailable, "make VLAN interface eth9.5: parent interface eth9 is not there", ""},
		{"eth0.4095", "", 0, errdefs.IsInvalidArgument, "a VLAN id is from 1 to 4094", ""},
		{"eth0.x", "", 0, errdefs.IsInvalidArgument, "no VLAN on eth0", ""},
		{"", "", 0, nil, "", ""},
	} {
		n := network.Network{Options: map[string]string{"parent": c.parent, "macvlan_mode": c.mode}}
		err := macvlan.Driver{}.Ready(n, c.users, host)
		if (err == nil) != (c.is == nil) || err != nil && (!c.is(err) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v, want %q", c.parent, err, c.text)
		}
		if up := (macvlan.Driver{}).Uplink(n, host); c.uplink != "" && up != c.uplink || c.parent == "" && up != "" {
			t.Errorf("%s is on %q, want %q", c.parent, up, c.uplink)
		}
	}
}
