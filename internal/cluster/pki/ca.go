// Package pki is who is who in a cluster: its certificate authority, the certificates of
// its hosts, and the tokens by which hosts come in.
//
// The authority is made with the cluster. Its key is only ever written down sealed; the
// hosts that let others in have the key to that. A host makes its own key, which never
// leaves it, and gets a certificate for a short time, renewed before it ends.
//
// A token names the authority by its hash and has a secret: who has it knows whom to
// trust before anything is sent, and can show that they were invited.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
)

const (
	caYears = 20
	// HostValid is how long a host's certificate holds.
	HostValid = 90 * 24 * time.Hour
	// early is how far clocks may be behind that of the host where the cluster was made.
	early = 48 * time.Hour
)

// CA is a cluster's authority. Safe for concurrent use.
type CA struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes one for a cluster.
func NewCA(cluster string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from := time.Now().Add(-early)
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Isle cluster", Organization: []string{cluster}},
		NotBefore: from, NotAfter: from.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &CA{cert, key}, err
}

// Cluster is the cluster's id.
func (c *CA) Cluster() string { return ClusterOf(c.Cert) }

// ClusterOf is the cluster that a certificate is of; "" for one that is of none.
func ClusterOf(c *x509.Certificate) string {
	if len(c.Subject.Organization) != 1 {
		return ""
	}
	return c.Subject.Organization[0]
}

// Hash is what tokens name an authority by.
func Hash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.Raw) }

// Subject is whom a certificate is for.
type Subject struct {
	ID   string // becomes the common name
	Name string
	Addr netip.Addr
}

// Sign gives a host its certificate. Of the request only the key counts.
func (c *CA) Sign(request []byte, s Subject) (*x509.Certificate, error) {
	req, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if k, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate request: its key is not of curve P-256: %w", errdefs.ErrInvalidArgument)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: s.ID, Organization: []string{c.Cluster()}},
		NotBefore: c.Cert.NotBefore, NotAfter: time.Now().Add(HostValid), // the former is so that clocks need not agree
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{s.Addr.AsSlice()}, DNSNames: []string{s.ID},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.Cert, req.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Revoke is a list (RFC 5280 section 5) of certificates that hold no more.
func (c *CA) Revoke(serials []string) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: c.Cert.NotBefore, NextUpdate: c.Cert.NotAfter}
	for _, s := range serials {
		n, ok := new(big.Int).SetString(s, 16)
		if !ok {
			continue // somebody wrote nonsense
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: c.Cert.NotBefore})
	}
	return x509.CreateRevocationList(rand.Reader, list, c.Cert, c.key)
}

// Serial is a certificate's number, as Revoke takes it.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f // RFC 5280 section 4.1.2.2: positive
	return new(big.Int).SetBytes(b[:])
}

// EncodeCert and DecodeCert are PEM.
func EncodeCert(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// DecodeCert reads the first certificate of b.
func DecodeCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("there is no certificate: %w", errdefs.ErrInvalidArgument)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return c, nil
}
