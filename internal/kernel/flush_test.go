package kernel

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isle/internal/netspec"
)

// What holds while all rules are gone, because the guards of the bridges do not
// depend on them.

// newFlushed is a guarded policy after somebody flushed all rules, with the
// questions of that time.
func newFlushed(t testing.TB) *policy {
	p := newGuarded(t)
	if bad := settled(p.questions); len(bad) > 0 {
		t.Fatalf("before the flush: %v", bad)
	}
	p.host.Run("nft", "flush", "ruleset")
	p.questions = nil
	p.askFlushed()
	return p
}

func (p *policy) askFlushed() {
	p.askPorts()
	for f := range 2 {
		for n := range policyNets {
			link, first, second := fmt.Sprintf(" isbr%d", n), fmt.Sprintf("c%d-1", n), fmt.Sprintf("c%d-2", n)
			for _, from := range []string{"lan", "transit", sibling(n)} {
				p.calls("flushed", call{from: from, network: "tcp", to: member(n, 1).url(f, 80)}, blocked, "guard"+link)
			}
			p.calls("flushed, the host", call{from: "host", network: "tcp", to: member(n, 1).url(f, 80)}, answer(first, 80, gateway(n)[f]), link)
			p.frame(fmt.Sprintf("flushed, within network %d, IPv%d", n, 4+2*f), first, &p.wires[second].ears, says(macOf(n, 1), member(n, 1).addr(f)), heard, link)
		}
		p.calls("flushed, with the mark of the guards", call{from: "c2-1", network: "tcp", to: member(natNet, 1).url(f, 80), mark: int(p.table.GuardMark())}, blocked, "guard isbr1")
		p.frame(fmt.Sprintf("flushed, out of an internal network, IPv%d", 4+2*f), "c3-1", &p.wires["lan"].ears, func(token []byte) []byte {
			return eth(netspec.MAC{2, 0, 0, 0, internalNet, 1}, macOf(internalNet, 1), etherOf(lanAt.addr(f)), udp(member(internalNet, 1).addr(f), lanAt.addr(f), 9998, token))
		}, blocked, "guard isbr3 lets out")
	}
	p.calls("flushed, within a network", call{from: router, network: "tcp", to: member(natNet, 1).url(0, 80)}, answer("c1-1", 80, member(natNet, 4)[0]), "")
	p.calls("flushed, within a network", call{from: router, network: "tcp", to: member(natNet, 1).url(1, 80)}, answer("c1-1", 80, member(natNet, 4)[1]), "")
}

// sibling is a container of another network.
func sibling(n int) string {
	if n == plainNet {
		return "c2-2"
	}
	return "c6-2"
}

// TestFlushFailsClosed (CVE-2025-54388, CVE-2025-54410, CVE-2026-115538):
// others can delete rules, so rules must not be all that holds. While they are
// gone nobody comes in, however often he tries.
func TestFlushFailsClosed(t *testing.T) {
	p := newGuarded(t)
	echo(t, p.ns["c1-1"].File, 9)
	echo(t, p.ns["lan"].File, 9)
	p.publish(5001, 9)
	if bad := settled(p.questions); len(bad) > 0 {
		t.Fatalf("before the flush: %v", bad)
	}
	in, out := dialTCP(t, p.ns["lan"].File, hostAt.url(0, 5001)), dialTCP(t, p.ns["c1-1"].File, lanAt.url(0, 9))
	if !in() || !out() {
		t.Fatal("no echo before the flush")
	}
	before := p.questions
	p.host.Run("nft", "flush", "ruleset")
	p.questions = nil
	p.askFlushed()
	p.hammer(t, 1000)
	for name, got := range settled(p.questions) {
		t.Errorf("%s: %q", name, got)
	}
	p.change(p.observe(), p.want)
	for name, got := range settled(before) {
		t.Errorf("after the repair: %s: %q", name, got)
	}
	if !in() || !out() {
		t.Error("a connection from before the flush ended")
	}
}

func (p *policy) publish(port, to uint16) {
	o := netspec.Publish{Proto: "tcp", HostIP: anywhere.addr(0), HostPort: port, Count: 1, To: member(natNet, 1).addr(0), ToPort: to, Link: "isbr1"}
	p.want.Add(o)
	p.apply(state(o))
}

// hammer connects at least n times where nobody may, and counts who got in.
func (p *policy) hammer(t *testing.T, n int) {
	t.Helper()
	for name, calls := range p.forbidden() {
		t.Run(name, func(t *testing.T) {
			var tries, got atomic.Int64
			var wg sync.WaitGroup
			slots := make(chan struct{}, 100)
			for int(tries.Load()) < n {
				for _, c := range calls {
					slots <- struct{}{}
					tries.Add(1)
					wg.Go(func() {
						defer func() { <-slots }()
						if a := p.call(c, 100*time.Millisecond); strings.Contains(a, "from") && got.Add(1) < 10 {
							t.Errorf("%s to %s: %q", c.from, c.to, a)
						}
					})
				}
			}
			wg.Wait()
			t.Logf("%d attempts, %d got in", tries.Load(), got.Load())
		})
	}
}

// forbidden is who may not connect where, by what went wrong elsewhere.
func (p *policy) forbidden() map[string][]call {
	const direct, isolation, deleted = "CVE-2025-54388 containers from outside", "CVE-2025-54410 networks from each other", "CVE-2026-115538 rules deleted by others"
	out := map[string][]call{}
	for n := range policyNets {
		for f := range 2 {
			for _, port := range []int{80, 90, 7101} { // published, open, neither
				to := member(n, 1).url(f, port)
				out[direct] = append(out[direct], call{from: "lan", network: "tcp", to: to}, call{from: "transit", network: "tcp", to: to})
				out[isolation] = append(out[isolation], call{from: sibling(n), network: "tcp", to: to})
			}
		}
	}
	for f := range 2 {
		for _, to := range []string{lanAt.url(f, 80), member(natNet, 1).url(f, 80), farAt.url(f, 80)} {
			out[deleted] = append(out[deleted], call{from: "c3-1", network: "tcp", to: to})
		}
		for _, from := range []string{"lan", "transit", "c1-1"} {
			out[deleted] = append(out[deleted], call{from: from, network: "tcp", to: member(internalNet, 1).url(f, 80)})
		}
	}
	return out
}
