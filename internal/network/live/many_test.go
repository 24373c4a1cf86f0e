package live_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
)

// many is more containers than a bridge has ports.
const many = 1500

// TestFifteenHundred: one network with 1,500 containers. The kernel's 1,023 ports
// of a bridge are no wall, and nobody in a container sees where it was.
func TestFifteenHundred(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	h := newHost(t, true)
	m := h.start()
	defer func() { stop(m) }()
	n, err := m.Create(t.Context(), api.CreateRequest{
		Name: "app", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/16")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	addrs, spent := h.fill(m, "app", many)
	around := func(n int) time.Duration {
		part := slices.Sorted(slices.Values(spent[max(n-50, 0):n]))
		return part[len(part)/2]
	}
	one := around(50)
	t.Logf("attach as a ratio to the first: at 500 %.2f, at 1,000 %.2f, at 1,050 %.2f, at 1,500 %.2f (median of 50; the first: %s)",
		ratio(around(500), one), ratio(around(1000), one), ratio(around(1050), one), ratio(around(1500), one), one)

	for _, i := range []int{1, 999, 1000, 1400} {
		h.serve(netspec.NS(fmt.Sprint("c", i)), "0.0.0.0:80")
	}
	h.serve("", "0.0.0.0:81")
	check := func(when string) {
		t.Helper()
		for _, p := range [][2]int{{1, 1400}, {1400, 1}, {1, 999}, {1400, 1000}} {
			h.reach(netspec.NS(fmt.Sprint("c", p[0])), netip.AddrPortFrom(addrs[p[1]], 80), true, fmt.Sprintf("%s: %d to %d", when, p[0], p[1]))
		}
		h.reach("", netip.AddrPortFrom(addrs[1400], 80), true, when+": from the host")
		h.reach("c1400", netip.AddrPortFrom(n.Pools[0].Gateway, 81), true, when+": to the gateway")
	}
	check("at first")
	stop(m)
	h.count.n = 0
	m = h.start()
	if err := m.Sync(t.Context()); err != nil || h.count.n != 0 {
		t.Errorf("%d kernel changes at a restart, %v", h.count.n, err)
	}
	check("after a restart")
	for i := range addrs {
		if err := m.Close(t.Context(), fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	if links := run(t, "ip", "-o", "link"); strings.Contains(links, "isleb") || strings.Contains(links, "islet") {
		t.Errorf("left over:\n%s", links)
	}
}

// fill puts n containers on a network and returns their addresses and what each took.
func (h *host) fill(m *network.Manager, net string, n int) (addrs []netip.Addr, spent []time.Duration) {
	for i := range n {
		at := time.Now()
		out := h.open(m, fmt.Sprint("c", i), nil, net)
		spent = append(spent, time.Since(at))
		addrs = append(addrs, out.Endpoints[0].Addr(true))
	}
	return addrs, spent
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }
