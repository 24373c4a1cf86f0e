package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	headerTimeout = 30 * time.Second // for a client to send its request's header
	shutdownGrace = 5 * time.Second  // for requests to end once they were cancelled
)

// Config is what a Server is made of.
type Config struct {
	Backend Backend      // required
	Cluster Cluster      // nil: this isled knows of none
	Keys    Keys         // nil: this isled has none
	Log     *slog.Logger // nil: nothing is logged
	Version string       // of Isle, for the Server header
	// BuilderVersion is the builder that clients are advised to use: "1" for
	// the classic endpoint, "2" for BuildKit. Empty: "1".
	BuilderVersion string
}

// Server is the HTTP side of isled. Make it with New.
type Server struct {
	Config

	mux      *http.ServeMux
	df       singleflight.Group // concurrent "system df" share one computation
	hijacked sync.WaitGroup     // connections that net/http has handed over
}

// New returns a server for cfg.Backend.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.BuilderVersion = cmp.Or(cfg.BuilderVersion, "1")
	s := &Server{Config: cfg, mux: http.NewServeMux()}
	s.routes()
	return s
}

// Handler answers requests of the API.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Serve answers on every listener until ctx is done, then cancels what is
// running, waits for it for a while, and closes the rest. It closes the listeners.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	done := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { done <- srv.Serve(l) }()
	}
	var err error
	pending := len(listeners)
	select {
	case <-ctx.Done():
	case err = <-done: // one listener failed: so does the server
		pending--
	}
	cancel()
	stopped := s.shutdown(srv)
	for range pending {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, stopped)
}

func (s *Server) shutdown(srv *http.Server) error {
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		s.Log.Warn("requests did not end in time and are cut off")
		err = srv.Close()
	}
	s.hijacked.Wait() // each ends because its context is done and its connection past its deadline
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}

// serve is one request: header, route, error or panic to answer, log line.
func (s *Server) serve(rw http.ResponseWriter, r *http.Request) {
	a := &answer{ResponseWriter: rw, v: newest}
	begun := time.Now()
	defer func() {
		s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "version", a.v, "status", a.status,
			"took", time.Since(begun), "agent", r.UserAgent())
	}()
	defer func() {
		if p := recover(); p != nil {
			s.panicked(a, r, p)
		}
	}()
	s.header(a.Header())
	if err := s.route(a, r); err != nil {
		s.fail(a, r, err)
	}
}

// header is what every answer carries.
func (s *Server) header(h http.Header) {
	h.Set("Server", fmt.Sprintf("Isle/%s (%s)", s.Version, runtime.GOOS))
	h.Set("Api-Version", newest.String())
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)
}

// panicked answers 500, or cuts the connection when the answer has begun: the
// client must not take half an answer for a whole one.
func (s *Server) panicked(a *answer, r *http.Request, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // compared as net/http does
		panic(p)
	}
	s.Log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if a.hijacked {
		return
	}
	if a.status != 0 {
		panic(http.ErrAbortHandler)
	}
	s.fail(a, r, errors.New("internal error: see the log of isled"))
}

// route finds the version and the handler.
func (s *Server) route(a *answer, r *http.Request) error {
	path, v, err := splitVersion(r.URL.EscapedPath())
	if err != nil {
		return err
	}
	a.v = v
	if r.Method == http.MethodOptions {
		a.WriteHeader(http.StatusOK)
		return nil
	}
	if !setPath(r, path) {
		return errNoPage
	}
	s.mux.ServeHTTP(a, r)
	return a.err
}

// setPath puts a normal form of the escaped path into r: no double slash (a
// client may put "/name" where a name belongs), none at the end, no dots.
func setPath(r *http.Request, escaped string) bool {
	parts := strings.FieldsFunc(escaped, func(c rune) bool { return c == '/' })
	for _, p := range parts {
		if p == "." || p == ".." {
			return false
		}
	}
	u, err := r.URL.Parse("/" + strings.Join(parts, "/"))
	if err != nil {
		return false
	}
	r.URL.Path, r.URL.RawPath = u.Path, u.RawPath
	return true
}
