// Package firewalldtest runs the real firewalld for a test, where nothing of the
// machine is touched: on a bus of its own, in the test's own network and mount
// namespaces (see kerneltest.Main).
package firewalldtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/probe"
)

// Daemon is a firewalld of a test's.
type Daemon struct {
	Address string // of the bus
	t       testing.TB
	proc    *program // nil: it is stopped
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
`

// Start runs firewalld until the test ends. Without it the test is skipped.
func Start(t testing.TB) *Daemon {
	t.Helper()
	need(t, "firewalld", "firewall-cmd")
	d := Bus(t)
	private(t, "/run", "")
	private(t, "/etc/firewalld", "/etc/firewalld/.")
	d.Run()
	t.Cleanup(d.Stop)
	return d
}

// Bus runs a bus without firewalld until the test ends.
func Bus(t testing.TB) *Daemon {
	t.Helper()
	need(t, "dbus-daemon")
	dir := t.TempDir()
	d := &Daemon{Address: "unix:path=" + filepath.Join(dir, "bus"), t: t}
	conf := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, filepath.Join(dir, "bus")), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := d.run("dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+conf)
	t.Cleanup(bus.end)
	d.wait("the bus", func() bool { c, err := d.Connect(); return err == nil && c.Close() == nil })
	return d
}

func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil || os.Geteuid() != 0 {
			t.Skip(&probe.NotSupportedError{Feature: "running " + p, Err: err})
		}
	}
}

// private puts an empty file system, or one with a copy, over a directory.
func private(t testing.TB, dir, from string) {
	t.Helper()
	kept := t.TempDir()
	if from != "" {
		output(t, "cp", "-a", from, kept)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if from != "" {
		output(t, "cp", "-a", kept+"/.", dir)
	}
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// program is one that runs for the test.
type program struct {
	*exec.Cmd
	ended chan struct{}
}

// run starts a program from a thread that stays: the program's death signal is tied
// to it.
func (d *Daemon) run(name string, args ...string) program {
	d.t.Helper()
	c := program{exec.Command(name, args...), make(chan struct{})}
	c.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+d.Address)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(c.ended)
		err := c.Start()
		started <- err
		if err == nil {
			_ = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (p program) end() {
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

func (d *Daemon) wait(what string, ready func() bool) {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("%s does not come up", what)
		}
	}
}

// Run starts firewalld, again after Stop, and waits until it answers.
func (d *Daemon) Run() {
	d.t.Helper()
	p := d.run("firewalld", "--nofork", "--nopid")
	d.proc = &p
	d.wait("firewalld", func() bool { out, err := d.Try("--state"); return err == nil && strings.Contains(out, "running") })
}

// Stop ends firewalld, as the machine's service manager would.
func (d *Daemon) Stop() {
	if d.proc != nil {
		d.proc.end()
		d.proc = nil
	}
}

// Connect opens the bus.
func (d *Daemon) Connect() (*dbus.Conn, error) { return dbus.Connect(d.Address) }

// Cmd is firewall-cmd.
func (d *Daemon) Cmd(args ...string) string {
	d.t.Helper()
	out, err := d.Try(args...)
	if err != nil {
		d.t.Fatalf("firewall-cmd %v: %v\n%s", args, err, out)
	}
	return out
}

// Try is Cmd that may fail.
func (d *Daemon) Try(args ...string) (string, error) {
	c := exec.Command("firewall-cmd", args...)
	c.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+d.Address)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
