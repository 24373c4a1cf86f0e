package seal_test

import (
	"crypto/ecdh"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/network/seal"
)

// belong checks that each key has its private half, and that only root reads it.
func belong(t *testing.T, k *seal.Keys) []seal.Key {
	t.Helper()
	keys, err := k.Keys()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		private, err := k.Private(key.Public)
		if err != nil {
			t.Fatal(err)
		}
		half, err := ecdh.X25519().NewPrivateKey(private[:])
		if err != nil || base64.StdEncoding.EncodeToString(half.PublicKey().Bytes()) != key.Public {
			t.Errorf("the halves do not belong together: %v", err)
		}
	}
	if info, err := os.Stat(k.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if names, err := os.ReadDir(filepath.Dir(k.Path)); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	return keys
}

// TestKeys: keys come and go, and every step is there after a restart.
func TestKeys(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "key"), time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	process := func() *seal.Keys { return &seal.Keys{Path: path, Now: func() time.Time { return now }} }
	first := belong(t, process())
	if len(first) != 1 || first[0].Link != 0 || !first[0].Made.Equal(now) {
		t.Fatalf("%+v", first)
	}
	now = now.Add(time.Hour)
	k := process()
	if err := k.Renew(); err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(); !errdefs.IsConflict(err) {
		t.Errorf("a third key: %v", err)
	}
	both := belong(t, process())
	if len(both) != 2 || both[1] != first[0] || both[0].Link != 1 || !both[0].Made.Equal(now) || both[0].Public == both[1].Public {
		t.Fatalf("%+v, before %+v", both, first)
	}
	for _, public := range []string{"another", first[0].Public, first[0].Public, both[0].Public} {
		if err := process().Forget(public); err != nil {
			t.Fatal(err)
		}
	}
	k = process()
	if left := belong(t, k); len(left) != 1 || left[0] != both[0] {
		t.Fatalf("%+v, before %+v", left, both)
	}
	if _, err := k.Private(first[0].Public); !errdefs.IsNotFound(err) {
		t.Errorf("the private half of a key that is gone: %v", err)
	}
	if err := k.Renew(); err != nil {
		t.Fatal(err)
	}
	if again := belong(t, process()); again[0].Link != 0 || again[1] != both[0] {
		t.Errorf("the links do not take turns: %+v", again)
	}
}

// TestKeyAlone: the file of a host that has had no other key than its first.
func TestKeyAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, made, made); err != nil {
		t.Fatal(err)
	}
	k := &seal.Keys{Path: path}
	if keys := belong(t, k); len(keys) != 1 || keys[0].Link != 0 || !keys[0].Made.Equal(made) {
		t.Errorf("%+v", keys)
	}
	if err := k.Renew(); err != nil {
		t.Fatal(err)
	}
	if keys := belong(t, &seal.Keys{Path: path}); len(keys) != 2 || !keys[1].Made.Equal(made) {
		t.Errorf("%+v", keys)
	}
}

func TestBrokenKey(t *testing.T) {
	good := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	for what, text := range map[string]string{
		"no key": "nonsense", "nothing": "", "a short key": "a2V5", "a third link": good + " 2 2026-01-02T03:04:05Z", "no time": good + " 1",
		"no such time": good + " 1 yesterday", "two of one link": good + "\n" + good, "an empty line": good + "\n\n", "three": good + "\n" + good + " 1 2026-01-02T03:04:05Z\n" + good,
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := &seal.Keys{Path: path}
		if _, err := k.Keys(); err == nil || strings.Contains(err.Error(), good) {
			t.Errorf("%s: %v", what, err)
		}
		if k.Renew() == nil || k.Forget("another") == nil {
			t.Errorf("%s: keys are made of it", what)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("%s: it was written over", what)
		}
	}
}
