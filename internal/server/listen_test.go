package server

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

func listening(t *testing.T, host, group string) (net.Listener, error) {
	t.Helper()
	ls, err := New(Config{}).Listen([]string{host}, group)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { ls[0].Close() })
	return ls[0], nil
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isle")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func names(t *testing.T, dir string) string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n []string
	for _, e := range all {
		n = append(n, e.Name())
	}
	return strings.Join(n, " ")
}

func TestListenUnix(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	l, err := listening(t, "unix://"+path, "1234")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode().Perm() != 0o660 || st.Gid != 1234 || st.Uid != uint32(os.Getuid()) || names(t, dir) != "s" {
		t.Errorf("%v %d:%d, directory has %s", info.Mode(), st.Uid, st.Gid, names(t, dir))
	}
	if _, err := listening(t, "unix://"+path, ""); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "is in use") {
		t.Error(err)
	}
	l.Close()
	if left := names(t, dir); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestListenStaleSocket(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close() // as after a crash
	l, err := listening(t, "unix://"+path, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	// A socket that is another's by now is not removed.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if names(t, dir) != "s" {
		t.Error("removed what is not ours")
	}
	if _, err := listening(t, "unix://"+path, ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a file was replaced: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	for host, want := range map[string]string{
		"/run/x.sock":           "has no scheme",
		"http://x":              "is none of unix, tcp, fd",
		"unix:///nonexistent/s": "no such file",
		"unix:///tmp/" + strings.Repeat("long", 40): "too long",
		"tcp://127.0.0.1:notaport":                  "listen on tcp://127.0.0.1:notaport",
		"fd://":                                     "systemd handed over no sockets",
	} {
		if _, err := listening(t, host, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
	dir := shortDir(t)
	if _, err := New(Config{}).Listen([]string{"unix://" + dir + "/s", "nonsense"}, ""); err == nil || names(t, dir) != "" {
		t.Errorf("%v, left behind %q", err, names(t, dir))
	}
}

func TestListenUnknownGroup(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ls, err := s.Listen([]string{"unix://" + shortDir(t) + "/s"}, "no-such-group-here")
	if err != nil {
		t.Fatal(err)
	}
	ls[0].Close()
	if !strings.Contains(log.String(), "no such group") {
		t.Error(log.String())
	}
}

func TestListenTCP(t *testing.T) {
	var log bytes.Buffer
	s := New(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ls, err := s.Listen([]string{"tcp://127.0.0.1:0"}, "")
	if err != nil {
		t.Fatal(err)
	}
	ls[0].Close()
	if log.Len() > 0 {
		t.Error(log.String())
	}
}

// The test runs itself as systemd would: a listening socket at descriptor 3.
func TestListenActivated(t *testing.T) {
	if os.Getenv("ISLE_ACTIVATED") != "" {
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		l, err := listening(t, "fd://", "")
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("activated"))
		c.Close()
		return
	}
	path := filepath.Join(shortDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestListenActivated$")
	cmd.Env = append(os.Environ(), "ISLE_ACTIVATED=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 9)
	if n, _ := c.Read(b); string(b[:n]) != "activated" {
		t.Errorf("%q", b[:n])
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
