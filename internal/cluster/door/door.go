// Package door is where hosts come into a cluster: a small HTTPS server that strangers may
// call, and its client.
//
//	GET  /v1/time   anybody; what time it is there
//	POST /v1/join   who has a token
//	POST /v1/renew  a host of the cluster, with its certificate
//	POST /v1/member a host of the cluster that wants to be a member, with its certificate
//
// Whoever calls is hostile until shown otherwise: bodies are small, waits are short, and
// nobody gets more than some tries and connections at a time. What is decided is decided
// by the Clerk; the door only knows how to ask.
package door

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/pki"
)

// JoinRequest is what a host says of itself.
type JoinRequest struct {
	Secret  string // of the token, as pki.Token.Shown
	Name    string
	Addr    netip.Addr
	Request []byte // for its certificate
	Ports   Ports
	// External: the host is set up for an etcd that others run.
	External bool
}

// Ports are where a host that becomes a member will be reached.
type Ports struct{ Door, Client, Peer uint16 }

// JoinAnswer is what it needs to be one of the cluster.
type JoinAnswer struct {
	Cluster, ID string
	CA, Cert    []byte   // PEM
	Endpoints   []string // of the etcd
	External    bool     // the etcd is not ours
	// For those that become members:
	Member bool
	Unlock []byte
	Peers  string // as etcd's initial-cluster
}

// Clerk decides. Its errors go to the caller with their class.
type Clerk interface {
	// Join lets a host in, if its secret is right.
	Join(ctx context.Context, r JoinRequest) (JoinAnswer, error)
	// Renew gives a host of the cluster a new certificate, in PEM.
	Renew(ctx context.Context, host string, request []byte) ([]byte, error)
	// Promote makes a host of the cluster a member, when one is missing.
	Promote(ctx context.Context, host string) (JoinAnswer, error)
	// Admitted is of class PermissionDenied for hosts that were removed.
	Admitted(host string) error
}

// Bounds for who calls.
const (
	maxBody     = 16 << 10
	perRequest  = 20 * time.Second
	perDecision = 15 * time.Second
	maxConns    = 128
	maxPerPeer  = 8
	triesWindow = 10 * time.Second
	tries       = 20
)

// Server is a door. All fields are required.
type Server struct {
	Clerk    Clerk
	Identity *pki.Identity
	Log      *slog.Logger
	visitors visitors
}

// Serve answers until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: s.handler(), TLSConfig: s.Identity.ServerTLS(true),
		ReadTimeout: perRequest / 2, WriteTimeout: perRequest, IdleTimeout: time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		Protocols:   new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.ServeTLS(s.visitors.limit(l), "", "")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/time", func(w http.ResponseWriter, _ *http.Request) { answer(w, timeAnswer{time.Now()}) })
	mux.HandleFunc("POST /v1/join", s.join)
	mux.HandleFunc("POST /v1/renew", s.renew)
	mux.HandleFunc("POST /v1/member", s.promote)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.visitors.mayTry(r.RemoteAddr, time.Now()) {
			refuse(w, errBusy)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

type timeAnswer struct{ Time time.Time }

type renewal struct{ Request, Cert []byte }

func (s *Server) join(w http.ResponseWriter, r *http.Request) {
	var req JoinRequest
	if err := read(r, &req); err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), perDecision)
	defer cancel()
	ans, err := s.Clerk.Join(ctx, req)
	if err != nil {
		s.Log.Warn("a host was not let into the cluster", "from", r.RemoteAddr, "name", req.Name, "error", err)
		refuse(w, err)
		return
	}
	s.Log.Info("a host has joined the cluster", "from", r.RemoteAddr, "name", req.Name, "id", ans.ID, "member", ans.Member)
	answer(w, ans)
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	host, err := s.caller(r)
	var req renewal
	if err == nil {
		err = read(r, &req)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), perDecision)
		defer cancel()
		req.Cert, err = s.Clerk.Renew(ctx, host, req.Request)
	}
	if err != nil {
		s.Log.Warn("a certificate was not renewed", "from", r.RemoteAddr, "host", host, "error", err)
		refuse(w, err)
		return
	}
	answer(w, req)
}

func (s *Server) promote(w http.ResponseWriter, r *http.Request) {
	host, err := s.caller(r)
	var ans JoinAnswer
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), perDecision)
		defer cancel()
		ans, err = s.Clerk.Promote(ctx, host)
	}
	if err != nil {
		s.Log.Warn("a host did not become a member", "from", r.RemoteAddr, "host", host, "error", err)
		refuse(w, err)
		return
	}
	s.Log.Info("a host becomes a member", "from", r.RemoteAddr, "host", host)
	answer(w, ans)
}

var errNoCertificate = classed("a certificate of this cluster is needed", errdefs.ErrUnauthenticated)

// caller is the host whose certificate was shown.
func (s *Server) caller(r *http.Request) (string, error) {
	if len(r.TLS.VerifiedChains) == 0 {
		return "", errNoCertificate
	}
	host := r.TLS.VerifiedChains[0][0].Subject.CommonName
	return host, s.Clerk.Admitted(host)
}

func read(r *http.Request, into any) error {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return errors.Join(classed("the request cannot be read", errdefs.ErrInvalidArgument), err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the caller has left when this fails
}
