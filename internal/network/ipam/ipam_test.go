package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"isle/internal/network/ipam"
	"isle/internal/store"
	"isle/internal/store/storetest"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// take reserves in a transaction of its own.
func take(st store.Store, l *ipam.Allocator, p netip.Prefix, owner string, want netip.Addr) (a netip.Addr, err error) {
	err = st.Update(context.Background(), func(tx store.Tx) (err error) {
		a, err = l.Reserve(tx, p, owner, want)
		return err
	})
	if err == nil {
		l.Taken(p, a)
	}
	return a, err
}

func give(st store.Store, l *ipam.Allocator, p netip.Prefix, owner string) (a netip.Addr, err error) {
	err = st.Update(context.Background(), func(tx store.Tx) (err error) {
		a, err = l.Release(tx, p, owner)
		return err
	})
	if err == nil {
		l.Freed(p, a)
	}
	return a, err
}

func load(st store.Store, pools ...ipam.Pool) *ipam.Allocator {
	l := &ipam.Allocator{}
	if err := st.View(context.Background(), func(tx store.Tx) error {
		for _, p := range pools {
			if err := l.Load(tx, p); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		panic(err)
	}
	return l
}

func TestEdges(t *testing.T) {
	for _, c := range []struct {
		subnet      string
		first, last string
		n           int
	}{
		{"10.0.0.0/29", "10.0.0.1", "10.0.0.6", 6},
		{"10.0.0.0/30", "10.0.0.1", "10.0.0.2", 2},
		{"10.0.0.0/31", "10.0.0.0", "10.0.0.1", 2},
		{"10.0.255.248/29", "10.0.255.249", "10.0.255.254", 6},
		{"255.255.255.248/29", "255.255.255.249", "255.255.255.254", 6},
		{"fd00::/125", "fd00::1", "fd00::7", 7},
		{"fd00::ff00/120", "fd00::ff01", "fd00::ffff", 255},
	} {
		st, p := &storetest.Mem{}, prefix(c.subnet)
		l := load(st, ipam.Pool{Subnet: p})
		var got []netip.Addr
		for i := 0; ; i++ {
			a, err := take(st, l, p, fmt.Sprint(i), netip.Addr{})
			if errdefs.IsResourceExhausted(err) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a)
		}
		if len(got) != c.n || got[0].String() != c.first || got[len(got)-1].String() != c.last {
			t.Errorf("%s: %d addresses %v, want %d from %s to %s", c.subnet, len(got), got, c.n, c.first, c.last)
		}
	}
}

// TestAgainstModel: no address twice, none outside, none that is excluded,
// none lost, and one that was freed is not the next one.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st, p := &storetest.Mem{}, prefix("10.0.0.0/28")
		pool := ipam.Pool{Subnet: p, Exclude: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		l := load(st, pool)
		has := map[string]netip.Addr{}
		var freed, last netip.Addr
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				owner := rapid.StringMatching(`[a-t]`).Draw(t, "owner")
				a, err := take(st, l, p, owner, netip.Addr{})
				old, again := has[owner]
				switch {
				case again && (err != nil || a != old):
					t.Fatalf("%s has %s, now %s, %v", owner, old, a, err)
				case errdefs.IsResourceExhausted(err):
					if len(has) != 13 {
						t.Fatalf("exhausted with %d of 13 taken", len(has))
					}
				case err != nil:
					t.Fatal(err)
				default:
					for o, b := range has {
						if a == b && o != owner {
							t.Fatalf("%s has %s and so has %s", o, a, owner)
						}
					}
					if !again && a == freed && !last.Less(a) && freeAbove(last, has) {
						t.Fatalf("%s was freed a moment ago, and the cursor at %s has not been round", a, last)
					}
					if !p.Contains(a) || a.String() == "10.0.0.0" || a.String() == "10.0.0.1" || a.String() == "10.0.0.15" {
						t.Fatalf("%s is not to be had", a)
					}
					if has[owner] = a; !again {
						freed, last = netip.Addr{}, a
					}
				}
			},
			"release": func(t *rapid.T) {
				owner := rapid.StringMatching(`[a-t]`).Draw(t, "owner")
				a, err := give(st, l, p, owner)
				if err != nil || a != has[owner] {
					t.Fatalf("released %s, %v; want %s", a, err, has[owner])
				}
				if a.IsValid() {
					freed = a
				}
				delete(has, owner)
			},
			"roll back": func(t *rapid.T) {
				boom := errors.New("boom")
				err := st.Update(context.Background(), func(tx store.Tx) error {
					_, err := l.Reserve(tx, p, "rolled back", netip.Addr{})
					return errors.Join(err, boom)
				})
				if !errors.Is(err, boom) {
					t.Fatal(err)
				}
			},
			"restart": func(*rapid.T) { l, freed, last = load(st, pool), netip.Addr{}, netip.Addr{} },
		})
	})
}

// freeAbove reports whether the model has a free address between last and the
// end of 10.0.0.0/28.
func freeAbove(last netip.Addr, has map[string]netip.Addr) bool {
	taken := map[netip.Addr]bool{}
	for _, a := range has {
		taken[a] = true
	}
	for a := last.Next(); a.Less(netip.MustParseAddr("10.0.0.15")); a = a.Next() {
		if !taken[a] {
			return true
		}
	}
	return false
}

// TestTwiceInOneTransaction: what is reserved but not committed counts.
func TestTwiceInOneTransaction(t *testing.T) {
	st, p := &storetest.Mem{}, prefix("10.0.0.0/24")
	l := load(st, ipam.Pool{Subnet: p})
	err := st.Update(t.Context(), func(tx store.Tx) error {
		a, err1 := l.Reserve(tx, p, "a", netip.Addr{})
		b, err2 := l.Reserve(tx, p, "b", netip.Addr{})
		_, err3 := l.Reserve(tx, p, "c", a)
		if a == b || !errors.Is(err3, ipam.ErrInUse) {
			t.Errorf("%s, %s, %v", a, b, err3)
		}
		return errors.Join(err1, err2)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAlmostFull: finding the last free address of a /16 does not look at the
// others one by one.
func TestAlmostFull(t *testing.T) {
	st, p := &storetest.Mem{}, prefix("10.0.0.0/16")
	l := load(st, ipam.Pool{Subnet: p})
	for i := 1; i < 1<<16-1; i++ {
		if i != 40_000 {
			l.Taken(p, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		}
	}
	if n := testing.AllocsPerRun(1, func() {
		if a, err := take(st, l, p, "x", netip.Addr{}); err != nil || a.String() != "10.0.156.64" {
			t.Errorf("%s, %v", a, err)
		}
	}); n > 200 {
		t.Errorf("%v allocations", n)
	}
}

func TestChoose(t *testing.T) {
	l := &ipam.Allocator{Sources: []ipam.Source{{prefix("10.0.0.0/22"), 24}, {prefix("fd00::/48"), 64}}}
	foreign := []ipam.Foreign{{Prefix: prefix("10.0.1.128/25"), What: "route", Dev: "eth0"}, {Prefix: prefix("0.0.0.0/0"), What: "route"}}
	var got []string
	for {
		p, err := l.Choose(false, 0, foreign)
		if err != nil {
			if !errdefs.IsNotFound(err) {
				t.Error(err)
			}
			break
		}
		l.Open(ipam.Pool{Subnet: p})
		got = append(got, p.String())
	}
	if fmt.Sprint(got) != "[10.0.0.0/24 10.0.2.0/24 10.0.3.0/24]" {
		t.Error(got)
	}
	for i := range 300 {
		p, err := l.Choose(true, 0, foreign)
		if want := fmt.Sprintf("fd00:0:0:%x::/64", i); err != nil || p != prefix(want) {
			t.Fatalf("%s, %v; want %s", p, err, want)
		}
		l.Open(ipam.Pool{Subnet: p})
	}
	l.Drop(prefix("10.0.2.0/24"))
	if p, err := l.Choose(false, 25, foreign); err != nil || p.Bits() != 25 || !prefix("10.0.0.0/22").Overlaps(p) {
		t.Errorf("a size: %s, %v", p, err)
	}
}

func TestULA(t *testing.T) {
	a, b := ipam.ULA("a"), ipam.ULA("b")
	if a == b || a != ipam.ULA("a") || a.Bits() != 48 || !a.Addr().IsPrivate() {
		t.Error(a, b)
	}
}

// TestLargeSubnet: a subnet of more than 64 bits, with a range that is not where it
// begins. Addresses with the same end are not the same.
func TestLargeSubnet(t *testing.T) {
	p, st := prefix("fd00::/48"), &storetest.Mem{}
	pool := ipam.Pool{Subnet: p, Range: prefix("fd00:0:0:5::/126"), Exclude: []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00:0:0:5::2")}}
	l := load(st, pool)
	for i, c := range []struct{ want, get string }{
		{"", "fd00:0:0:5::"}, {"", "fd00:0:0:5::1"}, {"fd00::3", "fd00::3"}, {"", "fd00:0:0:5::3"}, {"", ""},
		{"fd00:0:0:1::", "fd00:0:0:1::"}, {"fd00:0:0:1::3", "fd00:0:0:1::3"}, {"fd00:0:0:1::3", ""}, {"fd00::", ""}, {"fd00::1", ""}, {"fd00:0:0:5::2", ""},
	} {
		if i == 7 {
			l = load(st, pool) // a restart
		}
		var want netip.Addr
		if c.want != "" {
			want = netip.MustParseAddr(c.want)
		}
		a, err := take(st, l, p, fmt.Sprint("c", i), want)
		if (err == nil) != (c.get != "") || err == nil && a.String() != c.get {
			t.Errorf("%d, wants %q: %s, %v; should be %q", i, c.want, a, err, c.get)
		}
	}
	if u := l.Usage(p); u != (ipam.Usage{InUse: 9, Available: 0}) {
		t.Errorf("%+v", u)
	}
	if _, err := give(st, l, p, "c2"); err != nil {
		t.Fatal(err)
	}
	if a, err := take(st, l, p, "c9", netip.MustParseAddr("fd00::3")); err != nil || l.Usage(p).InUse != 9 {
		t.Errorf("%s, %v, %+v: it was given back", a, err, l.Usage(p))
	}
}
