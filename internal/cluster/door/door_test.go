package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/pki"
)

// clerk lets in who says "sesame".
type clerk struct {
	ca      *pki.CA
	secret  string
	removed string
}

func (c *clerk) Join(_ context.Context, r JoinRequest) (a JoinAnswer, err error) {
	if r.Secret != c.secret {
		return a, classed("the token is wrong or has expired", errdefs.ErrPermissionDenied)
	}
	if r.Name == "taken" {
		return a, classed("there is a host taken already", errdefs.ErrAlreadyExists)
	}
	cert, err := c.ca.Sign(r.Request, pki.Subject{ID: "new", Addr: r.Addr})
	if err != nil {
		return a, err
	}
	return JoinAnswer{Cluster: "one", ID: "new", CA: pki.EncodeCert(c.ca.Cert), Cert: pki.EncodeCert(cert)}, nil
}

func (c *clerk) Renew(_ context.Context, host string, request []byte) ([]byte, error) {
	cert, err := c.ca.Sign(request, pki.Subject{ID: host, Addr: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		return nil, err
	}
	return pki.EncodeCert(cert), nil
}

func (c *clerk) Promote(_ context.Context, host string) (JoinAnswer, error) {
	return JoinAnswer{ID: host, Member: true, Unlock: []byte("key")}, nil
}

func (c *clerk) Admitted(host string) error {
	if host == c.removed {
		return classed("host "+host+" was removed", errdefs.ErrPermissionDenied)
	}
	return nil
}

func identity(t *testing.T, ca *pki.CA, id string) *pki.Identity {
	t.Helper()
	key, req, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req, pki.Subject{ID: id, Addr: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	i, err := pki.Write(t.TempDir(), ca.Cert, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// open opens a door on loopback.
func open(t *testing.T) (addr string, token pki.Token, c *clerk) {
	t.Helper()
	ca, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	token = pki.NewToken(pki.Hash(ca.Cert))
	c = &clerk{ca: ca, secret: token.Shown(), removed: "gone"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Clerk: c, Identity: identity(t, ca, "server"), Log: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String(), token, c
}

func request(t *testing.T, name string) JoinRequest {
	t.Helper()
	_, req, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return JoinRequest{Name: name, Addr: netip.MustParseAddr("192.0.2.7"), Request: req}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	addr, token, _ := open(t)
	a, err := Join(t.Context(), addr, token, request(t, "web"))
	if err != nil || a.ID != "new" || !bytes.Contains(a.Cert, []byte("CERTIFICATE")) {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := Join(t.Context(), addr, token, request(t, "taken")); !errdefs.IsAlreadyExists(err) || err.Error() != "there is a host taken already: already exists" {
		t.Errorf("%v", err)
	}
	wrong := pki.NewToken(token.CA)
	if _, err := Join(t.Context(), addr, wrong, request(t, "web")); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "token") {
		t.Errorf("a wrong secret: %v", err)
	}
	other, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Join(t.Context(), addr, pki.NewToken(pki.Hash(other.Cert)), request(t, "web")); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("a token of another cluster: %v", err)
	}
	bad := request(t, "web")
	bad.Request = []byte("x")
	if _, err := Join(t.Context(), addr, token, bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a bad certificate request: %v", err)
	}
	if _, err := Join(t.Context(), "127.0.0.1:1", token, request(t, "web")); !errdefs.IsUnavailable(err) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := Join(t.Context(), "bad host:1", token, request(t, "web")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a bad address: %v", err)
	}
}

// TestWrongClock: a host whose clock is wrong is told so, before it is let in.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	ca, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	for off, want := range map[time.Duration]string{26 * time.Hour: "26h0m behind that of", -3 * time.Hour: "3h0m ahead of that of", -100 * 24 * time.Hour: "100 days ahead of"} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", identity(t, ca, "server").ServerTLS(true))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				t.Error("the secret was sent")
			}
			answer(w, timeAnswer{time.Now().Add(off)})
		})}
		go srv.Serve(l)
		defer srv.Close()
		_, err = Join(t.Context(), l.Addr().String(), pki.NewToken(pki.Hash(ca.Cert)), request(t, "web"))
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", off, err)
		}
	}
}

// TestPromote: only a host of the cluster that was not removed gets the key of members.
func TestPromote(t *testing.T) {
	t.Parallel()
	addr, _, c := open(t)
	ans, err := Promote(t.Context(), addr, identity(t, c.ca, "a"))
	if err != nil || ans.ID != "a" || string(ans.Unlock) != "key" {
		t.Errorf("%+v, %v", ans, err)
	}
	forger, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	for what, id := range map[string]*pki.Identity{"a removed host": identity(t, c.ca, "gone"), "a forger": identity(t, forger, "a")} {
		if ans, err := Promote(t.Context(), addr, id); !errdefs.IsPermissionDenied(err) || ans.Unlock != nil {
			t.Errorf("%s: %+v, %v", what, ans, err)
		}
	}
}

// TestRenew: only hosts of the cluster that were not removed get a new certificate.
func TestRenew(t *testing.T) {
	t.Parallel()
	addr, _, c := open(t)
	_, req, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := Renew(t.Context(), addr, identity(t, c.ca, "a"), req)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := pki.DecodeCert(pem); err != nil || cert.Subject.CommonName != "a" {
		t.Errorf("%v", err)
	}
	if _, err := Renew(t.Context(), addr, identity(t, c.ca, "gone"), req); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a removed host: %v", err)
	}
	forger, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(t.Context(), addr, identity(t, forger, "a"), req); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a forged host: %v", err)
	}
	hc, done := client(&tls.Config{InsecureSkipVerify: true})
	defer done()
	if err := call(t.Context(), hc, http.MethodPost, "https://"+addr+"/v1/renew", renewal{Request: req}, &renewal{}); !errdefs.IsUnauthorized(err) {
		t.Errorf("without a certificate: %v", err)
	}
}

// TestHostile: what strangers send is answered shortly, and costs nothing that lasts.
func TestHostile(t *testing.T) {
	t.Parallel()
	addr, token, _ := open(t)
	hc, done := client(&tls.Config{InsecureSkipVerify: true})
	defer done()
	for what, body := range map[string]string{
		"nothing": "", "garbage": "\x00\xff{", "too large": `{"Name":"` + strings.Repeat("x", 1<<20), "deep": strings.Repeat("[", 10000),
		"another type": `{"Name":5}`, "a list": `[]`,
	} {
		resp, err := hc.Post("https://"+addr+"/v1/join", "application/json", strings.NewReader(body))
		if err != nil {
			continue // it was cut off while it was sent
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var f failure
		if resp.StatusCode/100 != 4 || json.Unmarshal(b, &f) != nil || f.Class != "invalid" {
			t.Errorf("%s: %s %s", what, resp.Status, b)
		}
	}
	for _, path := range []string{"/", "/v2/join"} {
		if resp, err := hc.Get("https://" + addr + path); err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	busy := false
	for range 2 * tries {
		_, err := Join(t.Context(), addr, pki.NewToken(token.CA), request(t, "web"))
		busy = busy || errdefs.IsResourceExhausted(err)
	}
	if !busy {
		t.Error("a stranger may try without an end")
	}
}

func TestVisitors(t *testing.T) {
	t.Parallel()
	var v visitors
	now := time.Now()
	for i := range tries + 1 {
		if got := v.mayTry("192.0.2.1:99", now); got != (i < tries) {
			t.Errorf("try %d: %v", i, got)
		}
	}
	if !v.mayTry("192.0.2.2:99", now) || !v.mayTry("192.0.2.1:99", now.Add(2*triesWindow)) {
		t.Error("another peer, or later: refused")
	}
	if peerOf("[2001:db8::1]:5") != peerOf("[2001:db8::ffff]:5") || peerOf("[::ffff:192.0.2.1]:5") != peerOf("192.0.2.1:6") {
		t.Error("one peer is taken for two")
	}
	for i := range maxPeers {
		v.mayTry(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1).String(), now.Add(2*triesWindow))
	}
	if v.mayTry("192.0.2.77:1", now.Add(2*triesWindow)) || len(v.tries) > maxPeers {
		t.Error("what is remembered of peers has no bound")
	}
	p := peerOf("192.0.2.1:1")
	for i := range maxPerPeer + 1 {
		if got := v.enter(p); got != (i < maxPerPeer) {
			t.Errorf("connection %d: %v", i, got)
		}
	}
	v.leave(p)
	if !v.enter(p) {
		t.Error("a place that was left is not free")
	}
}
