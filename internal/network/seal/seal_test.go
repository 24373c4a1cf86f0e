package seal_test

import (
	"crypto/ecdh"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/network/seal"
)

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k := &seal.Keys{Path: path}
	public, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := (&seal.Keys{Path: path}).Public(); err != nil || again != public {
		t.Errorf("after a restart %s, %v; before %s", again, err, public)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	private, err := k.Private(public)
	if err != nil {
		t.Fatal(err)
	}
	half, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil || base64.StdEncoding.EncodeToString(half.PublicKey().Bytes()) != public {
		t.Errorf("the halves do not belong together: %v", err)
	}
	if _, err := k.Private("another"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestBrokenKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&seal.Keys{Path: path}).Public(); err == nil {
		t.Error("a broken file is taken for a key")
	}
	if b, _ := os.ReadFile(path); string(b) != "nonsense" {
		t.Error("it was written over")
	}
}
