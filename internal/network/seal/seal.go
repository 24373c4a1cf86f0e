// Package seal keeps this host's WireGuard keys: one, and while it is changed for another
// both, in a file that only root reads. The public halves are for everybody, the private
// ones for who makes the links.
//
// The file has a line for each key, the newest first: the private key (base64), the number
// of the link that it is for, when it was made (RFC 3339). It is written anew as a whole,
// so a crash leaves what was before or what is after. A line with a key alone is of link 0,
// made when the file was.
package seal

import (
	"cmp"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Links is how many links there are to have keys.
const Links = 2

// Key is one of this host, without its private half.
type Key struct {
	Public string // base64
	Link   int    // number of the link that it is for; of two keys it differs
	Made   time.Time
}

// Keys are those of this host.
type Keys struct {
	Path string           // of the file; required
	Now  func() time.Time // nil: the clock

	mu   sync.Mutex
	keys []pair
}

type pair struct {
	private *ecdh.PrivateKey
	Key
}

// Keys are those that there are, the newest first. The first time that they are asked
// for, one is made.
func (k *Keys) Keys() ([]Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return nil, err
	}
	var out []Key
	for _, p := range k.keys {
		out = append(out, p.Key)
	}
	return out, nil
}

// Renew makes a key beside the one that there is. Class Conflict: there are two already.
func (k *Keys) Renew() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return err
	}
	if len(k.keys) == Links {
		return fmt.Errorf("the last key of this host for encrypted tunnels is not in the place of the one before yet: %w", errdefs.ErrConflict)
	}
	fresh, err := k.generate(Links - 1 - k.keys[0].Link)
	if err != nil {
		return err
	}
	return k.save([]pair{fresh, k.keys[0]})
}

// Forget ends a key. The last one stays, and one that is not there is no error.
func (k *Keys) Forget(public string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(k.keys), func(p pair) bool { return p.Public == public })
	if len(left) == 0 || len(left) == len(k.keys) {
		return nil
	}
	return k.save(left)
}

// Private is the private key of a public one.
func (k *Keys) Private(public string) (private [32]byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return private, err
	}
	i := slices.IndexFunc(k.keys, func(p pair) bool { return p.Public == public })
	if i < 0 {
		return private, fmt.Errorf("key %s is none of this host: %w", public, errdefs.ErrNotFound)
	}
	copy(private[:], k.keys[i].private.Bytes())
	return private, nil
}

// load reads the file, unless that was done. mu is held.
func (k *Keys) load() error {
	if k.keys != nil {
		return nil
	}
	text, err := os.ReadFile(k.Path)
	if errors.Is(err, os.ErrNotExist) {
		var first pair
		if first, err = k.generate(0); err == nil {
			return k.save([]pair{first})
		}
	}
	if err != nil {
		return fmt.Errorf("keys of this host for encrypted tunnels: %w", err)
	}
	keys, err := k.parse(string(text))
	if err != nil {
		return fmt.Errorf("keys of this host for encrypted tunnels: file %s: %w (hint: move it away, and a new key is made)", k.Path, err)
	}
	k.keys = keys
	return nil
}

func (k *Keys) parse(text string) (keys []pair, err error) {
	for line := range strings.Lines(text) {
		p, err := k.parseLine(strings.Fields(line))
		if err != nil {
			return nil, err
		}
		keys = append(keys, p)
	}
	if n := len(keys); n == 0 || n > Links || n == Links && keys[0].Link == keys[1].Link {
		return nil, errors.New("there must be one key, or two for different links")
	}
	return keys, nil
}

func (k *Keys) parseLine(fields []string) (p pair, err error) {
	if len(fields) == 0 {
		return p, errors.New("an empty line")
	}
	b, err := base64.StdEncoding.DecodeString(fields[0])
	if err != nil {
		return p, errors.New("not base64") // what it was is nobody's to read
	}
	private, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return p, err
	}
	if len(fields) == 1 {
		info, err := os.Stat(k.Path)
		if err != nil {
			return p, err
		}
		return newPair(private, 0, info.ModTime()), nil
	}
	var link int
	if _, err := fmt.Sscan(fields[1], &link); err != nil || link < 0 || link >= Links || len(fields) != 3 {
		return p, errors.New("a line must have a key, the number of a link, and a time")
	}
	made, err := time.Parse(time.RFC3339, fields[2])
	return newPair(private, link, made), err
}

func newPair(private *ecdh.PrivateKey, link int, made time.Time) pair {
	return pair{private, Key{base64.StdEncoding.EncodeToString(private.PublicKey().Bytes()), link, made}}
}

func (k *Keys) generate(link int) (pair, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return pair{}, err
	}
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	return newPair(private, link, now().UTC().Truncate(time.Second)), nil
}

// save has the file be about these keys: as a whole, or not at all. mu is held.
func (k *Keys) save(keys []pair) error {
	var text strings.Builder
	for _, p := range keys {
		fmt.Fprintln(&text, base64.StdEncoding.EncodeToString(p.private.Bytes()), p.Link, p.Made.Format(time.RFC3339))
	}
	if err := replace(k.Path, text.String()); err != nil {
		return fmt.Errorf("write the keys of this host for encrypted tunnels: %w", err)
	}
	k.keys = slices.Clone(keys)
	return nil
}

func replace(path, text string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*") // for its owner only
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}
