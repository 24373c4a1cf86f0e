package main

import (
	"net/netip"
	"strings"
	"testing"

	"isle/internal/config"
)

// TestPoolV6: what IPv6 subnets are taken from is an IPv6 prefix with room for one.
func TestPoolV6(t *testing.T) {
	for v, ok := range map[string]bool{"": true, "fd00:5::/48": true, "fd00:5::/64": true, "10.0.0.0/8": false, "fd00:5::/80": false, "fd00": false} {
		list, err := poolSources(config.Network{PoolV6: v})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "network.pool-v6") {
			t.Errorf("%q: %v, %v", v, list, err)
		}
		if err == nil && v != "" && list[0].Base != netip.MustParsePrefix(v) {
			t.Errorf("%q: %v", v, list)
		}
	}
}
