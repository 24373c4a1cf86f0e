package ipvlan_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/network"
	"isle/internal/network/driver/drivertest"
	"isle/internal/network/driver/ipvlan"
)

var update = flag.Bool("update", false, "write the plans into testdata")

func TestPlan(t *testing.T) { drivertest.Plans(t, ipvlan.Driver{}, *update) }

func TestConformance(t *testing.T) {
	drivertest.Run(t, ipvlan.Driver{},
		map[string]string{"parent": "eth0"},
		map[string]string{"parent": "eth0", "ipvlan_flag": "private"},
		map[string]string{"parent": "eth0.50", "ipvlan_mode": "l3", "ipvlan_flag": "vepa"},
		map[string]string{"parent": "eth0", "ipvlan_mode": "l3s"},
	)
}

func TestRefused(t *testing.T) {
	for text, opts := range map[string]map[string]string{
		"requested ipvlan mode 'l4' is not valid, 'l2'":        {"ipvlan_mode": "l4"},
		"requested ipvlan flag 'open' is not valid, 'bridge'":  {"ipvlan_flag": "open"},
		"loopback interface is not a valid ipvlan parent link": {"parent": "lo"},
		"private is to keep":    {"parent": "eth0", "ipvlan_flag": "private", "isle.host_access": "true"},
		"the switch sends back": {"parent": "eth0", "ipvlan_flag": "vepa", "isle.host_access": "true"},
	} {
		n := drivertest.Network(ipvlan.Driver{}, opts, true, false)
		if err := (ipvlan.Driver{}).Validate(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// TestBeside: all links of an interface have one mode.
func TestBeside(t *testing.T) {
	net := func(mode, flag string) network.Network {
		return network.Network{Name: "there", Driver: "ipvlan", Options: map[string]string{"parent": "eth0", "ipvlan_mode": mode, "ipvlan_flag": flag}}
	}
	for _, c := range []struct {
		n, other network.Network
		good     bool
	}{
		{net("", ""), net("l2", "bridge"), true},
		{net("l3", "vepa"), net("l3", "vepa"), true},
		{net("l3", ""), net("l3s", ""), false},
		{net("", "private"), net("", ""), false},
	} {
		if err := (ipvlan.Driver{}).Beside(c.n, c.other); (err == nil) != c.good || err != nil && !errdefs.IsConflict(err) {
			t.Errorf("%v beside %v: %v", c.n.Options, c.other.Options, err)
		}
	}
}
