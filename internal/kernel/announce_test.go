package kernel

import (
	"strings"
	"testing"
	"time"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// TestAnnounce: a neighbour that knows an old place of an address learns the new
// one at once, without asking; without an Announce it does not.
func TestAnnounce(t *testing.T) {
	for _, times := range []int{1, 0} {
		m := newMachine(t)
		m.apply(bridge(1, netspec.Segment{}))
		neighbour, n := container(1, 7)
		m.apply(neighbour)
		w := m.in(n)
		eventually(t, "the neighbour's port passes", func() bool {
			return strings.Contains(m.host.Run("ip", "-d", "link", "show", "isv1-7"), "state forwarding")
		})
		for _, a := range []string{"10.1.0.2", "fd00:1::2"} {
			w.Run("ip", "neigh", "replace", a, "dev", "eth0", "lladdr", "02:00:00:00:00:99", "nud", "reachable")
		}
		c, ns := container(1, 1)
		c.Add(netspec.Announce{NS: ns, Link: "eth0", Times: times, Every: 1000})
		began := time.Now()
		m.apply(c)
		known := func() int { return strings.Count(w.Run("ip", "neigh"), "02:02:00:00:01:01") }
		if times == 0 {
			time.Sleep(20 * firstWait)
			if got := known(); got != 0 {
				t.Errorf("%d addresses were announced", got)
			}
			continue
		}
		eventually(t, "both addresses known", func() bool { return known() == 2 })
		t.Logf("known %s after the attach began", time.Since(began))
		if got := m.observe(); !got.Equal(merge(bridge(1, netspec.Segment{}), neighbour, c)) {
			t.Errorf("observed\n%s", reconcile.Dump(got))
		}

		m.remove(c) // and another container gets them
		moved := merge(c)
		for _, o := range c {
			if l, ok := o.(netspec.Link); ok {
				l.PeerMAC = netspec.MAC{2, 2, 0, 0, 1, 0x42}
				moved[l.Key()] = l
			}
		}
		m.apply(moved)
		eventually(t, "the other container's MAC address known", func() bool { return strings.Count(w.Run("ip", "neigh"), "02:02:00:00:01:42") == 2 })
		m.remove(moved)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
