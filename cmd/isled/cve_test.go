package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"isle/internal/config"
)

// CVE-2021-41091: another user of the machine does not get into the data
// directory, whatever the modes are inside of it.
func TestCVE_2021_41091(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not supported: needs root")
	}
	base, err := os.MkdirTemp("", "isled") // t.TempDir is closed to others in any case
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	c := config.Config{DataDir: filepath.Join(base, "data"), RunDir: filepath.Join(base, "run")}
	if err := errors.Join(os.Chmod(base, 0o755), directories(c)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{c.DataDir, c.RunDir} {
		if err := os.WriteFile(filepath.Join(dir, "world-readable"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	as := func(path string) error {
		cmd := exec.Command("cat", path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd.Run()
	}
	if err := as(filepath.Join(c.DataDir, "world-readable")); err == nil {
		t.Error("another user can read in the data directory")
	}
	if err := as(filepath.Join(c.RunDir, "world-readable")); err != nil {
		t.Errorf("another user cannot get to the socket: %v: this test shows nothing", err)
	}
}
