package remote_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/network"
	"isle/internal/network/driver/remote"
)

// TestRubbish : a plugin that answers badly costs bounded memory, and is told of in
// words.
func TestRubbish(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	for text, answer := range map[string]http.HandlerFunc{
		"the answer has more than 1048576 bytes": func(w http.ResponseWriter, _ *http.Request) {
			block := []byte(strings.Repeat(" ", 1<<16))
			for sent.Load() < 10<<30 { // until nobody listens
				n, err := w.Write(block)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		},
		"the answer is not understood: json: cannot unmarshal": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Err":{}}`) },
		"the answer is not understood: invalid character":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x00\x01") },
		"the answer is not understood: unexpected EOF":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Err":"`) },
		"exceeded max depth":                                   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Err":`+strings.Repeat("[", 20000)) },
		"server response headers exceeded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			fmt.Fprint(w, "{}")
		},
		"NetworkDriver.CreateNetwork: EOF": func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		"read the answer: unexpected EOF": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		// Not followed: the plugin does not say who else is asked.
		"plugin x: NetworkDriver.CreateNetwork: ": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		},
		"remote: [31mred  \ufffd": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"Err":"\u001b[31mred\n\u0085\ud800"}`)
		},
		"remote: " + strings.Repeat("x", 1024) + "…": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"Err":"%s"}`, strings.Repeat("x", 5000))
		},
	} {
		s := newSite(t)
		f := answering("NetworkDriver", map[string]any{"NetworkDriver.CreateNetwork": answer})
		s.run("x", f)
		_, err := s.lookUp(s.registry(), "x").Make(t.Context(), app())
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%.200v, want %q", err, text)
		}
		if strings.Contains(f.calls(), "CreateNetwork CreateNetwork") {
			t.Errorf("%s: a call that was sent was made again", text)
		}
	}
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes of an answer were taken", n)
	}
}

// TestSlow : a plugin that does not answer, or drips, ends with its time; what takes
// back what it may have done gets less.
func TestSlow(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"dripping": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		s := newSite(t)
		s.cfg.Answer = 200 * time.Millisecond
		f := answering("NetworkDriver", map[string]any{"NetworkDriver.Join": answer})
		s.run("x", f)
		_, err := s.lookUp(s.registry(), "x").Attach(t.Context(), web(app()))
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "plugin x: NetworkDriver.Join: no answer within 200ms") {
			t.Errorf("%s: %v", name, err)
		}
		if f.calls() != "CreateEndpoint Join Leave DeleteEndpoint" {
			t.Errorf("%s: %s", name, f.calls())
		}
	}
}

// TestRestart : a plugin that is started again is found and activated again, also when
// a call comes before it is there.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", nil)
	stop := s.run("x", f)
	r := s.registry()
	d := s.lookUp(r, "x")
	stop() // the socket is gone
	f.forget()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Unmake(t.Context(), app()); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	s.run("x", f)
	wg.Wait()
	if got := strings.Join(f.heard, "\n"); !strings.HasPrefix(got, "Plugin.Activate\nNetworkDriver.GetCapabilities\nNetworkDriver.DeleteNetwork") {
		t.Error(got)
	}
	f.forget()
	if err := d.Unmake(t.Context(), app()); err != nil || strings.Contains(strings.Join(f.heard, "\n"), "Activate") {
		t.Errorf("it was activated once more: %v, %v", err, f.heard)
	}
}

// TestSocketLeft : a plugin that died left its socket.
func TestSocketLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.Wait = 30 * time.Millisecond
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket("x"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	err = s.registry().LookUp(t.Context(), "x")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "connection refused (hint: is the plugin running?)") {
		t.Error(err)
	}
	if err := os.Remove(s.socket("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.registry().Driver("x").Unmake(t.Context(), app()); !errdefs.IsNotFound(err) {
		t.Error("a plugin that is away for good:", err)
	}
}

// TestPatienceIsOne : an operation of four calls waits for its plugin once.
func TestPatienceIsOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.Wait, s.cfg.Pause = time.Second, 600*time.Millisecond // one pause, no second
	start := time.Now()
	if err := s.registry().Driver("x").Detach(t.Context(), web(app())); err == nil {
		t.Fatal("a plugin that is not there took an endpoint away")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it waited %v", d)
	}
}

// TestTogether : one plugin is asked by many, and activated once.
func TestTogether(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", map[string]any{"NetworkDriver.Join": goodJoin})
	s.run("x", f)
	r := s.registry()
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			a := web(app())
			a.Endpoint.ID = fmt.Sprintf("%064x", i)
			res, err := r.Driver("x").Attach(t.Context(), a)
			if err != nil {
				t.Error(err)
				return
			}
			a.Endpoint.Result = &res
			if err := r.Driver("x").Detach(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(strings.Join(f.heard, "\n"), "Plugin.Activate"); n != 1 || !s.seats.empty() {
		t.Errorf("activated %d times, links left %v", n, s.seats.in)
	}
}

// FuzzJoin : whatever a plugin answers, it is taken whole and good, or not at all.
func FuzzJoin(f *testing.F) {
	f.Add(goodJoin)
	f.Add(`{"InterfaceName":{"SrcName":"p0"},"StaticRoutes":[{"Destination":"10.0.0.0/8","NextHop":"10.9.0.1"},null]}`)
	f.Add(`{"Gateway":"::ffff:10.9.0.1","StaticRoutes":[{"Destination":"0.0.0.0/0","RouteType":1}]}`)
	f.Fuzz(func(t *testing.T, answer string) {
		s := newSite(t)
		s.cfg.Answer = 2 * time.Second
		s.run("x", answering("NetworkDriver", map[string]any{"NetworkDriver.Join": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })}))
		a := web(app())
		d := s.registry().Driver("x")
		res, err := d.Attach(t.Context(), a)
		if err != nil {
			if !s.seats.empty() {
				t.Error("the link is still in the container")
			}
			return
		}
		sound(t, d, a, res)
	})
}

// sound reports a result that no kernel takes.
func sound(t *testing.T, d remote.Driver, a network.Attachment, res network.Result) {
	t.Helper()
	for _, g := range res.Gateways {
		if !g.IsValid() || g.Is4In6() || g.Zone() != "" || g.IsMulticast() || g.IsUnspecified() {
			t.Errorf("gateway %v", g)
		}
	}
	for _, r := range res.Routes {
		if r.Dst != r.Dst.Masked() || r.Dst.Bits() == 0 || r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4() {
			t.Errorf("route %v", r)
		}
	}
	a.Endpoint.Result = &res
	if err := d.Check(t.Context(), a); err != nil {
		t.Error(err)
	}
	if err := d.Detach(t.Context(), a); err != nil {
		t.Error(err)
	}
}
