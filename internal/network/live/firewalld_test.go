package live_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/firewalld"
	"isle/internal/firewalld/firewalldtest"
)

// TestBesideFirewalld: the real firewalld, which by itself rejects what is
// forwarded, is started, reloaded and restarted while containers are in use.
func TestBesideFirewalld(t *testing.T) {
	h := newHost(t, true)
	neighbour := lan(t)
	d := firewalldtest.Start(t)
	m := h.running()
	web := h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "bridge")
	h.serve("web", "0.0.0.0:80")
	h.serve("web", "0.0.0.0:81")
	answering(t, neighbour.File, "192.0.2.2:90")
	inside, err := os.Open(h.kernel.Path("web"))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	out := func() bool {
		c, err := reach(inside, "192.0.2.2:90", 300*time.Millisecond)
		return err == nil && c.Close() == nil
	}
	if out() {
		t.Error("firewalld lets containers out by itself: this test shows nothing")
	}

	z := firewalld.New(slog.New(slog.DiscardHandler))
	z.Connect = d.Connect
	z.Add("isle0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- z.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	addr := web.Endpoints[0].Addr(true).String()
	check := func(when string) {
		t.Helper()
		for end := time.Now().Add(patience); !out(); {
			if time.Now().After(end) {
				t.Fatalf("%s: containers do not get out", when)
			}
		}
		for _, c := range []struct {
			what, to string
			open     bool
		}{
			{"a published port", "192.0.2.1:8080", true},
			{"the container's own address", addr + ":80", false},
			{"a port that is not published", addr + ":81", false},
			{"the host", "192.0.2.1:81", false},
		} {
			conn, err := reach(neighbour.File, c.to, 500*time.Millisecond)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != c.open {
				t.Errorf("%s: %s: %v, want open: %t", when, c.what, err, c.open)
			}
		}
	}
	check("at first")
	d.Cmd("--reload")
	check("after a reload")
	d.Cmd("--complete-reload")
	check("after a complete reload")
	d.Stop()
	run(t, "nft", "flush", "ruleset")
	d.Run()
	check("after a restart that flushed everything")
	d.Cmd("--add-service=http") // rules of theirs change without a change of ours
	check("after a change of its rules")
}
