package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/pki"
)

func authority(t *testing.T, cluster string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func identity(t *testing.T, ca *pki.CA, id string) *pki.Identity {
	t.Helper()
	key, req, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req, pki.Subject{ID: id, Name: id, Addr: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	i, err := pki.Write(t.TempDir(), ca.Cert, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// shake is what both ends say of a handshake.
func shake(t *testing.T, client, server *tls.Config) (cerr, serr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		done <- tls.Server(c, server).Handshake()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client.ServerName = "127.0.0.1"
	cerr = tls.Client(c, client).Handshake()
	if cerr != nil {
		c.Close()
	}
	return cerr, <-done
}

// TestMutual: hosts of a cluster trust each other, and nobody else.
func TestMutual(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "one"), authority(t, "one") // of the same name: forged
	a, b, forged := identity(t, ca, "a"), identity(t, ca, "b"), identity(t, other, "a")
	if cerr, serr := shake(t, a.ClientTLS(), b.ServerTLS(false)); cerr != nil || serr != nil {
		t.Errorf("two of one cluster: %v, %v", cerr, serr)
	}
	if _, serr := shake(t, &tls.Config{InsecureSkipVerify: true}, b.ServerTLS(false)); serr == nil {
		t.Error("a client without a certificate was let in")
	}
	for _, strangers := range []bool{true, false} {
		c := forged.ClientTLS()
		c.InsecureSkipVerify = true
		if _, serr := shake(t, c, b.ServerTLS(strangers)); serr == nil {
			t.Error("a forged client was let in")
		}
	}
	if cerr, _ := shake(t, a.ClientTLS(), forged.ServerTLS(false)); cerr == nil {
		t.Error("a forged server was trusted")
	}
}

// TestPinned: a token's hash finds the right cluster, and no other.
func TestPinned(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "one"), authority(t, "two")
	server := identity(t, ca, "a").ServerTLS(true)
	if cerr, serr := shake(t, pki.PinnedTLS(pki.Hash(ca.Cert)), server); cerr != nil || serr != nil {
		t.Errorf("%v, %v", cerr, serr)
	}
	if cerr, _ := shake(t, pki.PinnedTLS(pki.Hash(other.Cert)), server); !errdefs.IsPermissionDenied(cerr) || !strings.Contains(cerr.Error(), "another cluster") {
		t.Errorf("a token of another cluster: %v", cerr)
	}
	mixed := identity(t, other, "a").ServerTLS(true) // shows the right authority with a certificate that is not of it
	get := mixed.GetCertificate
	mixed.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := get(h)
		cc := *c
		cc.Certificate = [][]byte{c.Certificate[0], ca.Cert.Raw}
		return &cc, err
	}
	if cerr, _ := shake(t, pki.PinnedTLS(pki.Hash(ca.Cert)), mixed); cerr == nil {
		t.Error("a certificate beside the authority was trusted")
	}
}

// TestSeal: the authority's key opens with the right key, for its own cluster, unchanged.
func TestSeal(t *testing.T) {
	t.Parallel()
	ca, unlock := authority(t, "one"), pki.NewUnlock()
	sealed, err := ca.Seal(unlock)
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.Unseal(ca.Cert, sealed, unlock)
	if err != nil {
		t.Fatal(err)
	}
	identity(t, again, "a")
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1] ^= 1
	for what, try := range map[string]func() (*pki.CA, error){
		"another key":        func() (*pki.CA, error) { return pki.Unseal(ca.Cert, sealed, pki.NewUnlock()) },
		"a short key":        func() (*pki.CA, error) { return pki.Unseal(ca.Cert, sealed, []byte("x")) },
		"a damaged one":      func() (*pki.CA, error) { return pki.Unseal(ca.Cert, damaged, unlock) },
		"nothing":            func() (*pki.CA, error) { return pki.Unseal(ca.Cert, nil, unlock) },
		"of another cluster": func() (*pki.CA, error) { return pki.Unseal(authority(t, "two").Cert, sealed, unlock) },
		"another authority":  func() (*pki.CA, error) { return pki.Unseal(authority(t, "one").Cert, sealed, unlock) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s: it opened", what)
		}
	}
}

// TestRequests: what is asked for in a certificate request does not count, and only keys
// of the one kind are signed.
func TestRequests(t *testing.T) {
	t.Parallel()
	ca := authority(t, "one")
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	req, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"evil"}, IPAddresses: []net.IP{{8, 8, 8, 8}}}, key)
	cert, err := ca.Sign(req, pki.Subject{ID: "a", Addr: netip.MustParseAddr("192.0.2.1")})
	if err != nil || cert.IsCA || len(cert.DNSNames) != 1 || cert.DNSNames[0] != "a" || cert.Subject.CommonName != "a" || pki.ClusterOf(cert) != "one" ||
		len(cert.IPAddresses) != 1 || cert.IPAddresses[0].String() != "192.0.2.1" {
		t.Errorf("%+v, %v", cert, err)
	}
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	weakReq, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	broken := bytes.Clone(req)
	broken[len(broken)-1] ^= 1
	for what, r := range map[string][]byte{"nothing": nil, "nonsense": []byte("x"), "RSA": weakReq, "a broken signature": broken} {
		if _, err := ca.Sign(r, pki.Subject{ID: "a", Addr: netip.MustParseAddr("192.0.2.1")}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	ca := authority(t, "one")
	cert := identity(t, ca, "a").Cert().Leaf
	der, err := ca.Revoke([]string{"no number", pki.Serial(cert)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil || list.CheckSignatureFrom(ca.Cert) != nil || len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestIdentityFiles: nobody but root reads the key, and what does not fit is refused.
func TestIdentityFiles(t *testing.T) {
	t.Parallel()
	ca := authority(t, "one")
	i := identity(t, ca, "a")
	st, err := os.Stat(i.Path(pki.HostFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if !i.Due().After(i.Cert().Leaf.NotBefore) || !i.Due().Before(i.Cert().Leaf.NotAfter) {
		t.Errorf("due at %s", i.Due())
	}
	if err := pki.WriteFile(i.Path(pki.CAFile), pki.EncodeCert(authority(t, "one").Cert)); err != nil {
		t.Fatal(err)
	}
	if err := i.Reload(); !errdefs.IsDataLoss(err) {
		t.Errorf("another authority: %v", err)
	}
	for _, b := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := pki.WriteFile(i.Path(pki.CAFile), []byte(b)); err != nil {
			t.Fatal(err)
		}
		if err := i.Reload(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	tok := pki.NewToken([32]byte{1, 2, 3})
	s := tok.String()
	got, err := pki.ParseToken(" " + s + "\n")
	if err != nil || got != tok || pki.Key(got.Shown()) != pki.Key(tok.Shown()) {
		t.Errorf("%+v, %v", got, err)
	}
	key := pki.Key(tok.Shown())
	if key == tok.Shown() || pki.Key(key) == key || key == pki.Key(pki.NewToken([32]byte{1, 2, 3}).Shown()) {
		t.Error("the remembered key says too much or nothing")
	}
	wrong := []string{"", "isle1-", "isle2" + s[5:], s[:len(s)-1], s + "a", strings.ToUpper(s), "SWMTKN-1-abc"}
	for i := len("isle1-"); i < len(s); i += 7 {
		c := byte('a')
		if s[i] == c {
			c = 'b'
		}
		wrong = append(wrong, s[:i]+string(c)+s[i+1:])
	}
	for _, w := range wrong {
		if _, err := pki.ParseToken(w); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", w, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(pki.NewToken([32]byte{}).String())
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := pki.ParseToken(s); err == nil && tok.String() != strings.TrimSpace(s) {
			t.Errorf("%q reads as %q", s, tok)
		}
	})
}
