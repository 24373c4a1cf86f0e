// Package seal keeps this host's WireGuard key: a file that only root reads. The public
// half is for everybody, the private one for who makes the link.
package seal

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// Keys are those of this host.
type Keys struct {
	Path string // of the file; required

	mu  sync.Mutex
	key *ecdh.PrivateKey
}

// Public is the public key, in base64. The first time it is asked for, the key is made.
func (k *Keys) Public() (string, error) {
	key, err := k.load()
	if err != nil {
		return "", fmt.Errorf("key of this host for encrypted tunnels: %w", err)
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}

// Private is the private key of a public one.
func (k *Keys) Private(public string) (private [32]byte, err error) {
	key, err := k.load()
	if err != nil {
		return private, fmt.Errorf("key of this host for encrypted tunnels: %w", err)
	}
	if base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()) != public {
		return private, fmt.Errorf("key %s is not the one of this host: %w", public, errdefs.ErrNotFound)
	}
	copy(private[:], key.Bytes())
	return private, nil
}

func (k *Keys) load() (*ecdh.PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	text, err := os.ReadFile(k.Path)
	if errors.Is(err, os.ErrNotExist) {
		return k.make()
	}
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err == nil {
		k.key, err = ecdh.X25519().NewPrivateKey(b)
	}
	if err != nil {
		return nil, fmt.Errorf("file %s: %w (hint: move it away, and a new key is made)", k.Path, err)
	}
	return k.key, nil
}

// make makes a key. It is in its place as a whole, or not at all.
func (k *Keys) make() (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(k.Path), filepath.Base(k.Path)+".*") // for its owner only
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key.Bytes()) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), k.Path); err != nil {
		return nil, err
	}
	k.key = key
	return key, nil
}
