package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Isled is one isled with directories of its own.
type Isled struct {
	Dir    string // holds data, run and the configuration
	Socket string
	Env    []string // more environment for the daemon
	NetNS  string   // network namespace that the daemon is in, by its name; "": this one
	Daemon string   // the program; "": the one that was built
	cmd    *exec.Cmd
	log    *os.File
}

// Bin is the directory of the built programs: $ISLE_BIN, or bin/ of the
// checkout, which "make build" fills.
func Bin() string {
	if d := os.Getenv("ISLE_BIN"); d != "" {
		return d
	}
	dir, _ := os.Getwd()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "bin")
		}
	}
	return "bin"
}

// NewIsled prepares an isled below dir with more configuration, without
// starting it.
func NewIsled(dir, extra string) (*Isled, error) { return NewHost(dir, CgroupParent(), extra) }

// NewHost is NewIsled for one of several on this machine: cgroup is the parent of its
// containers' groups. What is in there and is not its own it takes for left over.
func NewHost(dir, cgroup, extra string) (*Isled, error) {
	d := &Isled{Dir: dir, Socket: filepath.Join(dir, "run", "isle.sock")}
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("data-dir = %q\nrun-dir = %q\ngroup = \"root\"\nlog-level = \"debug\"\ncgroup-parent = %q\n%s\n",
		filepath.Join(dir, "data"), filepath.Join(dir, "run"), cgroup, extra)
	return d, os.WriteFile(filepath.Join(dir, "isled.toml"), []byte(conf), 0o644)
}

// Start starts isled and waits until it answers.
func (d *Isled) Start() error {
	log, err := os.OpenFile(filepath.Join(d.Dir, "isled.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	d.log = log
	args := []string{cmp.Or(d.Daemon, filepath.Join(Bin(), "isled")), "--config", filepath.Join(d.Dir, "isled.toml")}
	if d.NetNS != "" {
		args = append([]string{"nsenter", "--net=/run/netns/" + d.NetNS}, args...)
	}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), d.Env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	return d.await(30 * time.Second)
}

func (d *Isled) await(limit time.Duration) error {
	exited := make(chan error, 1)
	go func() { exited <- d.cmd.Wait() }()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-exited:
			return fmt.Errorf("isled ended at its start: %v\n%s", err, d.Tail())
		default:
		}
		if c, err := net.Dial("unix", d.Socket); err == nil {
			c.Close()
			return nil
		}
	}
	return fmt.Errorf("isled does not answer on %s\n%s", d.Socket, d.Tail())
}

// Tail is the end of isled's log.
func (d *Isled) Tail() string {
	b, _ := os.ReadFile(filepath.Join(d.Dir, "isled.log"))
	return string(b[max(0, len(b)-4000):])
}

// Kill is kill -9: containers run on.
func (d *Isled) Kill() { d.end(syscall.SIGKILL) }

// Stop asks isled to end: containers run on.
func (d *Isled) Stop() { d.end(syscall.SIGTERM) }

func (d *Isled) end(sig syscall.Signal) {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(sig)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && d.cmd.Process.Signal(syscall.Signal(0)) == nil; {
		time.Sleep(2 * time.Millisecond)
	}
	d.log.Close()
	d.cmd = nil
}

// Command is the isle CLI on this isled.
func (d *Isled) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(Bin(), "isle"), args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket)
	return cmd
}

// Isle runs the CLI and returns what it printed; it fails the test when the
// command fails.
func (d *Isled) Isle(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Try(args...)
	if err != nil {
		t.Fatalf("isle %s: %v\n%s\n--- isled:\n%s", strings.Join(args, " "), err, out, d.Tail())
	}
	return strings.TrimSpace(out)
}

// Try runs the CLI; the output has both streams.
func (d *Isled) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := d.Command(args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	return out.String(), err
}

// Run starts an isled for one test and takes it and its containers away after.
func Run(t testing.TB, extra string) *Isled {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "isle-lab-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewIsled(dir, extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// Remove is Clear, and the end of d's directories. The shim may still be leaving.
func (d *Isled) Remove() (err error) {
	d.Clear()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		unix.Unmount(filepath.Join(d.Dir, "run", "netns"), unix.MNT_DETACH)
		if err = os.RemoveAll(d.Dir); err == nil {
			return nil
		}
	}
	return err
}

// Clear removes all containers and ends isled and its shim.
func (d *Isled) Clear() {
	if d.cmd == nil {
		return
	}
	if ids, err := d.Try("ps", "-aq"); err == nil && strings.TrimSpace(ids) != "" {
		d.Try(append([]string{"rm", "-f", "-v"}, strings.Fields(ids)...)...)
	}
	d.Stop()
	d.EndShim()
}

// EndShim ends the shim, if there is one.
func (d *Isled) EndShim() {
	b, err := os.ReadFile(filepath.Join(d.Dir, "run", "shim.pid"))
	if err != nil {
		return
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err == nil && pid > 1 {
		syscall.Kill(pid, syscall.SIGTERM)
	}
}
