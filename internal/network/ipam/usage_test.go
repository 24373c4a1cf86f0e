package ipam_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"isle/internal/network/ipam"
	"isle/internal/store/storetest"
)

// TestSubnetsAreApart: several subnets, of both families, with ranges, against a
// model: each has its own owners, what is asked for by name may be outside the
// range, and the numbers of used and free addresses are right at any time.
func TestSubnetsAreApart(t *testing.T) {
	pools := []ipam.Pool{
		{Subnet: prefix("10.0.0.0/29"), Exclude: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{Subnet: prefix("10.0.0.8/29"), Range: prefix("10.0.0.12/30"), Exclude: []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.12")}},
		{Subnet: prefix("10.0.0.16/31")},
		{Subnet: prefix("fd00::/125"), Exclude: []netip.Addr{netip.MustParseAddr("fd00::1")}},
	}
	always := []uint64{3, 4, 0, 2}  // used by nobody: network, broadcast, gateway, aux
	ranged := []uint64{8, 4, 2, 8}  // how large the ranges are
	blocked := []uint64{3, 2, 0, 2} // of them
	rapid.Check(t, func(t *rapid.T) {
		st := &storetest.Mem{}
		l := load(st, pools...)
		has := make([]map[string]netip.Addr, len(pools))
		for i := range has {
			has[i] = map[string]netip.Addr{}
		}
		reserve := func(t *rapid.T, static bool) {
			i := rapid.IntRange(0, len(pools)-1).Draw(t, "pool")
			owner := rapid.StringMatching(`[a-f]`).Draw(t, "owner")
			want := netip.Addr{}
			if static {
				want = pools[i].Subnet.Addr()
				for range rapid.IntRange(0, 9).Draw(t, "offset") {
					want = want.Next()
				}
			}
			a, err := take(st, l, pools[i].Subnet, owner, want)
			old, again := has[i][owner]
			switch {
			case err != nil:
				if !errdefs.IsResourceExhausted(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsPermissionDenied(err) && !errdefs.IsConflict(err) {
					t.Fatal(err)
				}
				if errdefs.IsResourceExhausted(err) && (static || l.Usage(pools[i].Subnet).Available > 0) {
					t.Fatalf("%s: %v with %+v", pools[i].Subnet, err, l.Usage(pools[i].Subnet))
				}
				return
			case again && a != old:
				t.Fatalf("%s had %s, now %s", owner, old, a)
			case !pools[i].Subnet.Contains(a), !static && !again && pools[i].Range.IsValid() && !pools[i].Range.Contains(a):
				t.Fatalf("%s is not of %+v", a, pools[i])
			}
			for o, b := range has[i] {
				if o != owner && b == a {
					t.Fatalf("%s has %s and so has %s", o, b, owner)
				}
			}
			has[i][owner] = a
		}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) { reserve(t, false) },
			"static":  func(t *rapid.T) { reserve(t, true) },
			"release": func(t *rapid.T) {
				i := rapid.IntRange(0, len(pools)-1).Draw(t, "pool")
				owner := rapid.StringMatching(`[a-f]`).Draw(t, "owner")
				if a, err := give(st, l, pools[i].Subnet, owner); err != nil || a != has[i][owner] {
					t.Fatalf("%s, %v; want %s", a, err, has[i][owner])
				}
				delete(has[i], owner)
			},
			"restart": func(*rapid.T) { l = load(st, pools...) },
			"": func(t *rapid.T) {
				for i, p := range pools {
					in := uint64(0)
					for _, a := range has[i] {
						if !p.Range.IsValid() || p.Range.Contains(a) {
							in++
						}
					}
					want := ipam.Usage{InUse: always[i] + uint64(len(has[i])), Available: ranged[i] - blocked[i] - in}
					if got := l.Usage(p.Subnet); got != want {
						t.Fatalf("%s: %+v, want %+v", p.Subnet, got, want)
					}
				}
			},
		})
	})
}

// TestUsageOfMany: a /64 has more addresses than fit, and is counted all the same.
func TestUsageOfMany(t *testing.T) {
	l := load(&storetest.Mem{}, ipam.Pool{Subnet: prefix("fd00::/64")}, ipam.Pool{Subnet: prefix("fd01::/64"), Range: prefix("fd01::/80")})
	for p, want := range map[string]ipam.Usage{"fd00::/64": {InUse: 1, Available: 1<<64 - 2}, "fd01::/64": {InUse: 1, Available: 1<<48 - 1}, "10.0.0.0/8": {}} {
		if got := l.Usage(prefix(p)); got != want {
			t.Errorf("%s: %+v, want %+v", p, got, want)
		}
	}
}

// BenchmarkUsage costs the same however much is used.
func BenchmarkUsage(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := prefix("10.0.0.0/16")
			l := load(&storetest.Mem{}, ipam.Pool{Subnet: p})
			for i := range n {
				l.Taken(p, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
			}
			for b.Loop() {
				l.Usage(p)
			}
		})
	}
}
