package rtnl

import (
	"net/netip"
	"testing"
)

func TestBroadcast(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{
		"172.17.0.1/16":   "172.17.255.255",
		"172.16.0.1/16":   "172.16.255.255",
		"10.0.0.5/24":     "10.0.0.255",
		"192.168.3.65/26": "192.168.3.127",
		"10.1.2.3/8":      "10.255.255.255",
		"10.1.2.1/30":     "10.1.2.3",
	} {
		got, _ := netip.AddrFromSlice(broadcast(netip.MustParsePrefix(prefix)))
		if got.String() != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}
