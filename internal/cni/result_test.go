package cni

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var one = Made{
	Interfaces: []Interface{{Name: "islev1"}, {Name: "eth0", MAC: "02:00:00:00:00:01", MTU: 1500, Sandbox: "/run/netns/pod"}},
	Addresses: []Address{
		{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParseAddr("10.0.0.1")},
		{netip.MustParsePrefix("fd00::2/64"), netip.Addr{}},
	},
	Routes: []Route{{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1")}, {netip.MustParsePrefix("10.9.0.0/16"), netip.Addr{}}},
	DNS:    DNS{Nameservers: []string{"127.0.0.11"}},
}

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, a); d != "" {
		t.Error(d)
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"1.1.0": `{"cniVersion": "1.1.0",
			"interfaces": [{"name": "islev1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/pod"}],
			"ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1}, {"address": "fd00::2/64", "interface": 1}],
			"routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "10.9.0.0/16"}], "dns": {"nameservers": ["127.0.0.11"]}}`,
		"0.3.1": `{"cniVersion": "0.3.1",
			"interfaces": [{"name": "islev1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/pod"}],
			"ips": [{"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1}, {"version": "6", "address": "fd00::2/64", "interface": 1}],
			"routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "10.9.0.0/16"}], "dns": {"nameservers": ["127.0.0.11"]}}`,
	} {
		got, err := Result{}.With(version, one)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
}

// TestResultIsMerged: what others have made stays as it is, and where it is.
func TestResultIsMerged(t *testing.T) {
	t.Parallel()
	prev, err := parseResult([]byte(`{"cniVersion": "1.1.0", "future": {"a": 1}, "interfaces": [{"name": "br0", "pciID": "0000:00"}],
		"ips": [{"address": "10.7.0.2/24", "interface": 0}], "dns": {"nameservers": ["10.7.0.1"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	made := one
	made.Addresses, made.Routes = one.Addresses[:1], nil
	got, err := prev.With("1.1.0", made)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, `{"cniVersion": "1.1.0", "future": {"a": 1},
		"interfaces": [{"name": "br0", "pciID": "0000:00"}, {"name": "islev1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/pod"}],
		"ips": [{"address": "10.7.0.2/24", "interface": 0}, {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 2}],
		"dns": {"nameservers": ["10.7.0.1"]}}`)
}

func TestLacks(t *testing.T) {
	t.Parallel()
	raw, err := Result{}.With("1.1.0", one)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseResult(raw)
	if err != nil {
		t.Fatal(err)
	}
	inside := one.Interfaces[1]
	if got := r.Lacks(inside, []netip.Prefix{one.Addresses[0].Prefix}); len(got) != 0 {
		t.Errorf("%q", got)
	}
	inside.Sandbox = "/run/netns/other"
	if got := r.Lacks(inside, []netip.Prefix{netip.MustParsePrefix("10.0.0.3/24")}); len(got) != 2 {
		t.Errorf("%q", got)
	}
}
