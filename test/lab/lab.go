// Package lab gives a test binary a machine of its own: private mount, network
// and pid namespaces in which it is root, with a LAN around it. Nothing that
// happens there reaches the real machine, and everything but cgroups vanishes
// when the test ends, however it ends.
//
//	   10.77.0.2, fd77::2              10.77.0.1, fd77::1
//	┌─────────────┐                ┌──────────────────────┐
//	│ netns lan   ├─ eth0 ── up0 ──┤ the host: isled runs │
//	└─────────────┘                │ here                 │
//	                               └──────────────────────┘
//
// The neighbour "lan" is also the host's default route, so that it can play
// the router. A foreign nftables table and a foreign bridge are present; Check
// compares them afterwards.
package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	stageEnv  = "ISLE_LAB_STAGE"
	cgroupEnv = "ISLE_LAB_CGROUP"
)

// Addresses of the LAN.
const (
	Host4, Host6 = "10.77.0.1", "fd77::1"
	LAN4, LAN6   = "10.77.0.2", "fd77::2"
)

// Main is to be called by TestMain. It runs m in a machine of its own; setup,
// when given, runs in there first.
func Main(m *testing.M, setup func() error) {
	if os.Geteuid() != 0 {
		fmt.Println("lab: these tests need root; run them through scripts/test")
		os.Exit(1)
	}
	switch os.Getenv(stageEnv) {
	case "":
		os.Exit(outside())
	case "init":
		os.Exit(initProcess())
	}
	if err := furnish(setup); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// outside starts the machine and cleans up what namespaces do not contain.
func outside() int {
	must(os.Setenv(cgroupEnv, fmt.Sprintf("/isle-lab-%d", os.Getpid())))
	cmd := self("init")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	code := run(cmd)
	RemoveCgroups()
	return code
}

// initProcess is pid 1 of the machine: it reaps orphans while the tests run,
// and its end ends everything.
func initProcess() int {
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("proc", "/proc", "proc", 0, ""))
	cmd := self("tests")
	must(cmd.Start())
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for s := range sig {
			cmd.Process.Signal(s)
		}
	}()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1
		case pid == cmd.Process.Pid && ws.Exited():
			return ws.ExitStatus()
		case pid == cmd.Process.Pid && ws.Signaled():
			return 128 + int(ws.Signal())
		}
	}
}

func self(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func run(cmd *exec.Cmd) int {
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	must(err)
	return 0
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// CgroupParent is the parent cgroup for isleds in this machine.
func CgroupParent() string { return os.Getenv(cgroupEnv) }

// furnish makes the file systems, the LAN and what belongs to others.
func furnish(setup func() error) error {
	os.Unsetenv(stageEnv)
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("private /run: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=700"); err != nil {
		return fmt.Errorf("private /sys/fs/bpf: %w", err)
	}
	if err := os.WriteFile("/run/resolv.conf", []byte("nameserver "+LAN4+"\nsearch lab.test\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("private resolv.conf: %w", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(furniture), "\n") {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	foreign = listForeign()
	if setup != nil {
		return setup()
	}
	return nil
}

const furniture = `
ip link set lo up
ip netns add lan
ip -n lan link set lo up
ip link add up0 type veth peer name eth0 netns lan
ip addr add 10.77.0.1/24 dev up0
ip addr add fd77::1/64 dev up0 nodad
ip link set up0 up
ip -n lan addr add 10.77.0.2/24 dev eth0
ip -n lan addr add fd77::2/64 dev eth0 nodad
ip -n lan link set eth0 up
ip route add default via 10.77.0.2
ip -6 route add default via fd77::2
ip link add foreign0 type bridge
ip addr add 10.99.0.1/24 dev foreign0
ip link set foreign0 up
nft add table inet foreign
nft add chain inet foreign pass '{ type filter hook forward priority 5; policy accept; }'
nft add rule inet foreign pass ip saddr 203.0.113.7 drop comment '"not ours"'
`

var foreign string

func listForeign() string {
	var all []byte
	for _, c := range []string{"nft list table inet foreign", "ip -o link show foreign0", "ip -o addr show dev foreign0 | sed 's/tentative *//'", "ip -o addr show dev up0 | sed 's/tentative *//'", "ip route show default"} {
		out, _ := exec.Command("sh", "-c", c).CombinedOutput()
		all = append(all, out...)
	}
	return string(all)
}

// Check fails the test when something of others was touched.
func Check(t testing.TB) {
	t.Helper()
	if now := listForeign(); now != foreign {
		t.Errorf("foreign objects were changed\nbefore:\n%s\nafter:\n%s", foreign, now)
	}
}

// RemoveCgroups removes what labs leave below their parent cgroup.
func RemoveCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup" + CgroupParent(), "/sys/fs/cgroup/*" + CgroupParent()} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			removeTree(d)
		}
	}
}

func removeTree(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}
