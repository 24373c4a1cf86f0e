package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfigCommand: what isled would not start with is not printed as in force.
func TestConfigCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "isled.toml")
	for text, want := range map[string]string{
		"[network]\nguard-mark = 1\n": "",
		"[network]\nguard-mark = 3\n": "configuration " + file + ":2: network.guard-mark 3 must be one bit (a power of two), or 0",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := command()
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"config", "--config", file})
		err := cmd.Execute()
		if (want == "") != (err == nil) || err != nil && err.Error() != want {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if printed := strings.Contains(out.String(), "guard-mark = 1"); printed != (want == "") {
			t.Errorf("%q: printed %q", text, out.String())
		}
	}
}
