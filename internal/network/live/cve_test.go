package live_test

import (
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// In these, bridges let nothing in while there are no rules (netspec.Guard). On a
// kernel that cannot do that, what is tried in the very moments between somebody's
// flush and the repair gets through, and is counted.

// TestCVE_2025_54388 : somebody flushes all rules again and again while a neighbour
// tries a port of a container that is published for the host alone.
func TestCVE_2025_54388(t *testing.T) {
	underFlushes(t, api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: loopback, HostPort: "8080"}}}, "lan", "nft", "flush", "ruleset")
}

// TestCVE_2025_54410 : the same, and it is a container of another network that tries.
func TestCVE_2025_54410(t *testing.T) {
	underFlushes(t, nil, "other", "nft", "flush", "ruleset")
}

// TestCVE_2026_115538 : a program that deletes other programs' tables, not all rules.
func TestCVE_2026_115538(t *testing.T) {
	underFlushes(t, nil, "lan", "nft", "delete", "table", "inet", "isle")
}

func underFlushes(t *testing.T, ports api.PortMap, from string, harm ...string) {
	h := newHost(t, true)
	m := h.running()
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "app"}); err != nil {
		t.Fatal(err)
	}
	to := h.open(m, "web", ports, "app").Endpoints[0].Addr(true).String() + ":80"
	h.serve("web", "0.0.0.0:80")
	h.open(m, "other", nil, "bridge")
	tries := h.intruder(from)
	want := observe(t, h.kernel)
	var tried, leaks atomic.Int64
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			tried.Add(1)
			if c, err := reach(tries, to, 50*time.Millisecond); err == nil {
				c.Close()
				leaks.Add(1)
			}
		}
	}()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_ = exec.Command(harm[0], harm[1:]...).Run() // the table may not be there yet
	}
	for end := time.Now().Add(patience); !observe(t, h.kernel).Equal(want); {
		if time.Now().After(end) {
			t.Fatal("not repaired")
		}
	}
	during := leaks.Load()
	tried.Store(0)
	for tried.Load() < 5 {
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	<-ended
	if after := leaks.Load() - during; after > 1 { // one may have begun before the repair
		t.Errorf("%d connections after the repair", after)
	}
	t.Logf("%d connections got through between flush and repair", during)
	if h.kernel.Features().Guard && leaks.Load() > 0 {
		t.Errorf("%d connections got through while there were no rules, past the guard of the bridge", leaks.Load())
	}
	if _, err := reach(tries, to, 200*time.Millisecond); err == nil {
		t.Error("open when all is over")
	}
}

// intruder is the namespace from which containers are tried.
func (h *host) intruder(from string) *os.File {
	h.t.Helper()
	if from == "lan" {
		return lan(h.t).File
	}
	f, err := os.Open(h.kernel.Path("other"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	return f
}
