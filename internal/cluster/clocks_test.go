package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
)

// TestDescribeSkew: whose clock it is that is wrong.
func TestDescribeSkew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		off  map[string]time.Duration
		want string // ""; all is well
	}{
		{nil, ""},
		{map[string]time.Duration{"a": time.Minute, "b": -59 * time.Minute}, ""},
		{map[string]time.Duration{"a": 2 * time.Hour, "b": 2 * time.Hour}, "this host's clock is 2h0m behind those of a, b "},
		{map[string]time.Duration{"a": -25 * time.Hour}, "this host's clock is 25h0m ahead of those of a "},
		{map[string]time.Duration{"a": 0, "b": 100 * 24 * time.Hour}, "the clock of b is 100 days ahead of this host's "},
		{map[string]time.Duration{"a": 0, "b": -2 * time.Hour}, "the clock of b is 2h0m behind this host's "},
	} {
		got := describeSkew(tt.off)
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%v: %q, want %q", tt.off, got, tt.want)
		}
	}
}

// behind is a clerk whose clock was behind when it signed.
type behind struct {
	door.Clerk
	cert []byte
}

func (b behind) Admitted(string) error { return nil }

func (b behind) Renew(context.Context, string, []byte) ([]byte, error) { return b.cert, nil }

// TestRenewBehind: a certificate that ends before the one that there is is not taken.
func TestRenewBehind(t *testing.T) {
	t.Parallel()
	ca, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("127.0.0.1")
	sign := func() (*ecdsa.PrivateKey, *x509.Certificate) {
		key, request, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.Sign(request, pki.Subject{ID: "a", Name: "a", Addr: addr})
		if err != nil {
			t.Fatal(err)
		}
		return key, cert
	}
	_, before := sign()
	time.Sleep(1100 * time.Millisecond) // certificates have seconds
	key, now := sign()
	dir := t.TempDir()
	id, err := pki.Write(dir, ca.Cert, now, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go (&door.Server{Clerk: behind{cert: pki.EncodeCert(before)}, Identity: id, Log: slog.New(slog.DiscardHandler)}).Serve(t.Context(), l)
	s := &session{c: &Cluster{Config: Config{Dir: dir}}, identity: id}
	at := uint16(l.Addr().(*net.TCPAddr).Port)
	s.known.Store(&known{hosts: map[string]record{"b": {ID: "b", Name: "b", Addr: addr, Ports: door.Ports{Door: at}, Member: true}}})
	if err := s.renew(t.Context()); err == nil || !strings.Contains(err.Error(), "the clock there is behind") {
		t.Errorf("%v", err)
	}
	if got := s.identity.Cert().Leaf; !got.Equal(now) {
		t.Errorf("its certificate ends on %s", got.NotAfter)
	}
	if off := time.Until(s.now(t.Context())); off.Abs() > time.Minute {
		t.Errorf("where certificates are signed it is %s from now", off)
	}
}
