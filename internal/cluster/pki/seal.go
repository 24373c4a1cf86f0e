package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"github.com/containerd/errdefs"
)

// NewUnlock makes a key to seal with.
func NewUnlock() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

// Seal is the authority's key, encrypted (AES-256-GCM) and bound to its cluster.
func (c *CA) Seal(unlock []byte) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, err
	}
	aead, err := sealer(unlock)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(c.Cluster())), nil
}

// Unseal is the way back.
func Unseal(cert *x509.Certificate, sealed, unlock []byte) (*CA, error) {
	aead, err := sealer(unlock)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(ClusterOf(cert)))
	if err != nil {
		return nil, fmt.Errorf("the authority's key does not open with this host's: %w: %w", err, errdefs.ErrDataLoss)
	}
	k, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w: %w", err, errdefs.ErrDataLoss)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the authority's key is not that of its certificate: %w", errdefs.ErrDataLoss)
	}
	return &CA{cert, key}, nil
}

func sealer(unlock []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(unlock)
	if err != nil {
		return nil, fmt.Errorf("unlock key: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
