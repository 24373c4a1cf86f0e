package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Files of an identity, in its directory.
const (
	CAFile   = "ca.pem"
	HostFile = "host.pem" // certificate, authority and key in one, so that they are replaced at once
)

// Identity is who this host is: files in a directory. Safe for concurrent use; what is
// replaced is used from the next connection on.
type Identity struct {
	dir string

	mu   sync.Mutex
	ca   *x509.Certificate
	cert *tls.Certificate
}

// NewKey makes a host's key and the request for its certificate.
func NewKey() (key *ecdsa.PrivateKey, request []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, request, err
}

// Write makes the files of an identity in dir.
func Write(dir string, ca, cert *x509.Certificate, key *ecdsa.PrivateKey) (*Identity, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	both := append(EncodeCert(cert, ca), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	for _, f := range []struct {
		name string
		b    []byte
	}{{CAFile, EncodeCert(ca)}, {HostFile, both}} {
		if err := WriteFile(filepath.Join(dir, f.name), f.b); err != nil {
			return nil, err
		}
	}
	return Load(dir)
}

// WriteFile replaces a file that only root may read, whole or not at all.
func WriteFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // its mode is 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Load reads an identity.
func Load(dir string) (*Identity, error) {
	i := &Identity{dir: dir}
	if err := i.Reload(); err != nil {
		return nil, fmt.Errorf("this host's certificate in %s: %w", dir, err)
	}
	return i, nil
}

// Reload reads the files again.
func (i *Identity) Reload() error {
	b, err := os.ReadFile(filepath.Join(i.dir, CAFile))
	if err != nil {
		return err
	}
	ca, err := DecodeCert(b)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(i.Path(HostFile), i.Path(HostFile))
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	if err := cert.Leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("it is not of this cluster: %w: %w", err, errdefs.ErrDataLoss)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ca, i.cert = ca, &cert
	return nil
}

// Path is one of the files.
func (i *Identity) Path(name string) string { return filepath.Join(i.dir, name) }

// CA is the authority's certificate.
func (i *Identity) CA() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ca
}

// Cert is the host's.
func (i *Identity) Cert() *tls.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert
}

// Due is when the certificate should be renewed: a third of its time is left then.
func (i *Identity) Due() time.Time { return i.Cert().Leaf.NotAfter.Add(-HostValid / 3) }

// ClientTLS is for connections to hosts of the cluster, which have to show a certificate
// with the address that is called.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: i.pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.Cert(), nil },
	}
}

// ServerTLS is for who is called by hosts of the cluster, and with strangers by others
// too; what a certificate is shown has to be of the cluster either way.
func (i *Identity) ServerTLS(strangers bool) *tls.Config {
	auth := tls.RequireAndVerifyClientCert
	if strangers {
		auth = tls.VerifyClientCertIfGiven
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: i.pool(), ClientAuth: auth,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.Cert(), nil },
	}
}

func (i *Identity) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(i.CA())
	return p
}

// PinnedTLS is for who knows of a cluster only the hash of its authority. Whether the
// times of its certificates are right is not asked: the caller's clock may be wrong, which
// is told apart later.
func PinnedTLS(ca [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it instead
		VerifyConnection: func(s tls.ConnectionState) error {
			certs := s.PeerCertificates
			root := certs[len(certs)-1]
			if Hash(root) != ca {
				return fmt.Errorf("the host is of another cluster than the token: %w", errdefs.ErrPermissionDenied)
			}
			pool := x509.NewCertPool()
			pool.AddCert(root)
			_, err := certs[0].Verify(x509.VerifyOptions{Roots: pool, CurrentTime: certs[0].NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			return err
		},
	}
}
