package kernel

import (
	"testing"

	"isle/internal/netspec"
)

// flushed is what a firewall manager that reloads does to everybody's rules.
func (w *world) flushed() { w.host.Run("nft", "flush", "ruleset") }

// repaired is what the manager does when Watch tells it.
func (w *world) repaired() { w.change(w.observe(), w.want) }

// TestCVE_2025_54388 : what is published on a loopback address is no rule that
// a reload of the firewall could lose: a neighbour gets through neither before,
// nor while all rules are gone, nor after the repair, and to the container
// itself only while they are gone.
func TestCVE_2025_54388(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withBPF)
	needSockAddr(t, w.machine)
	local := netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 9090, Count: 1, To: ip("10.1.0.2"), ToPort: 7000}
	w.apply(state(local))
	w.want.Add(local)
	serveAt(t, w.host.File, "127.0.0.1", 9090) // isled's own socket, which holds the port
	w.lan.Run("ip", "addr", "flush", "dev", "lo")
	w.lan.Run("ip", "route", "flush", "table", "local", "127.0.0.0/8")
	w.lan.Run("ip", "route", "add", "127.0.0.1/32", "via", "192.0.2.1")
	check := func(when string, direct string) {
		t.Helper()
		for to, want := range map[string]string{"127.0.0.1:9090": blocked, "192.0.2.1:9090": blocked, "10.1.0.2:7000": direct} {
			if got := askFor(want, w.lan.File, "tcp", to); got != want {
				t.Errorf("%s: a neighbour at %s: %q, want %q", when, to, got, want)
			}
		}
		if got := askFor("10.1.0.1 on 7000", w.host.File, "tcp", "127.0.0.1:9090"); got != "10.1.0.1 on 7000" {
			t.Errorf("%s: the host itself: %q", when, got)
		}
	}
	check("at first", blocked)
	w.flushed()
	check("flushed", "192.0.2.2 on 7000")
	w.repaired()
	check("repaired", blocked)
}

// TestCVE_2025_54410 : isolation of networks from each other is back after
// somebody flushed the rules.
func TestCVE_2025_54410(t *testing.T) {
	w := newWorld(t)
	check := func(when, want string) {
		t.Helper()
		if got := askFor(want, w.from("c2-1"), "tcp", "10.1.0.2:80"); got != want {
			t.Errorf("%s: another network: %q, want %q", when, got, want)
		}
	}
	check("at first", blocked)
	w.flushed()
	check("flushed, which shows that the rules are what holds", "10.2.0.2 on 80")
	w.repaired()
	check("repaired", blocked)
	if got := askFor("10.1.0.3 on 80", w.from("c1-2"), "tcp", "10.1.0.2:80"); got != "10.1.0.3 on 80" {
		t.Errorf("within a network after the repair: %q", got)
	}
}
