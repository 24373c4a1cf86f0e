package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"isle/internal/config"
)

// TestUpToDate : what is checked in is what the code says, and a second run
// says the same.
func TestUpToDate(t *testing.T) {
	for range 2 {
		files, err := contents("../..")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range files {
			if got, err := os.ReadFile(filepath.Join("..", name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("docs/%s is not what the code says (%v); hint: make generate", name, err)
			}
		}
	}
}

// TestConfigurationIsTheDefault : reading the file changes nothing.
func TestConfigurationIsTheDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "isled.toml")
	if err := os.WriteFile(path, configuration(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := config.Default(); got.String() != want.String() || !reflect.DeepEqual(got.Network.Pools, want.Network.Pools) {
		t.Errorf("read:\n%s\nwant:\n%s", got, want)
	}
}

func TestDriverPage(t *testing.T) {
	if _, err := driverPage("x", []byte("# x\n\n**Name** `x`\n")); err == nil {
		t.Error("a README without its sections became a page")
	}
}
