package kernel

import (
	"slices"
	"testing"

	"isle/internal/netspec"
)

// Two isleds on one machine use one protocol number: neither may take the
// other's addresses for its own, to remove, nor for free, to choose again.
func TestBeside(t *testing.T) {
	m := newMachine(t)
	m.apply(bridge(1, netspec.Segment{}))
	m.host.IP("link set isbr1 group 4712")
	for key, o := range m.observe() {
		switch o.(type) {
		case netspec.Addr, netspec.Route:
			t.Errorf("%v is another's and was taken for ours", key)
		}
	}
	f, err := m.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]Used{f.Addrs, f.Routes} {
		if !slices.ContainsFunc(list, func(u Used) bool { return u.Overlaps(pfx("10.1.0.0/24")) }) {
			t.Errorf("another's subnet is not among what is foreign: %v", list)
		}
	}
	m.host.IP("link set isbr1 group 4711")
	m.remove(bridge(1, netspec.Segment{}))
}
