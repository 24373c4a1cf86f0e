// Package cluster runs isled on several hosts: network namespaces on one switch, each
// with a daemon of its own, driven by the command line.
//
//	h1 10.88.0.1 ─┐
//	h2 10.88.0.2 ─┼─ sw0 10.88.0.254, their default route
//	h3 10.88.0.3 ─┘
package cluster

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isle/api"
	"isle/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "6") // they mostly wait, in namespaces of their own
	lab.Main(m, func() error {
		return shell("ip link add sw0 type bridge; ip addr add 10.88.0.254/24 dev sw0; ip link set sw0 up")
	})
}

// kind is how hosts are made.
type kind struct {
	lease  int    // seconds
	daemon string // the program; "": the one that was built
}

// shortLease is so that nobody waits for long for what is gone.
const shortLease = 3

var usual = kind{lease: shortLease}

func shell(line string) error {
	if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

type host struct {
	*lab.Isled
	t    *testing.T
	name string
}

// newHost makes a namespace on the switch, and starts isled in it.
func newHost(t *testing.T, n int) *host {
	t.Helper()
	name := fmt.Sprintf("h%d", n)
	err := shell(fmt.Sprintf(`ip netns add %[1]s
		ip -n %[1]s link set lo up
		ip link add %[1]s type veth peer name eth0 netns %[1]s
		ip link set %[1]s master sw0 up
		ip -n %[1]s addr add 10.88.0.%[2]d/24 dev eth0
		ip -n %[1]s link set eth0 up
		ip -n %[1]s route add default via 10.88.0.254`, name, n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shell("ip netns del " + name) })
	return begin(t, name, usual)
}

// begin starts isled in a namespace: its own directories, control group and nft table.
func begin(t *testing.T, name string, k kind) *host {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "isle-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := lab.NewHost(dir, lab.CgroupParent()+"/"+name, fmt.Sprintf("[network]\nnft-table = %q\n[cluster]\nlease-seconds = %d\n", "isle-"+name, k.lease))
	if err != nil {
		t.Fatal(err)
	}
	d.NetNS, d.Daemon = name, k.daemon
	if k.daemon != "" {
		d.Env = []string{clockEnv + "=" + filepath.Join(dir, "clock")}
	}
	h := &host{d, t, name}
	if k.daemon != "" {
		h.clock(0)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	h.must(d.Start())
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// refused runs a command that has to fail, and to say why.
func (h *host) refused(why string, args ...string) {
	h.t.Helper()
	out, err := h.Try(args...)
	if err == nil || !strings.Contains(out, why) {
		h.t.Errorf("%s: isle %s: %v: %s; want %q", h.name, strings.Join(args, " "), err, out, why)
	}
}

// join runs what token prints.
func (h *host) join(at *host) {
	h.t.Helper()
	args := strings.Fields(at.Isle(h.t, "cluster", "token"))
	h.Isle(h.t, append(args[1:], "--name", h.name)...)
}

func (h *host) status() (st api.ClusterStatus) {
	out, _ := h.Try("cluster", "status", "--format", "json") // it fails when something is wrong
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &st); err != nil {
		st.Problem = out
	}
	return st
}

// alive are the names of the hosts that live, as this one sees it.
func (h *host) alive() string {
	out, err := h.Try("cluster", "ls", "--format", "json")
	if err != nil {
		return out
	}
	var names []string
	for line := range strings.Lines(out) {
		var c api.ClusterHost
		if json.Unmarshal([]byte(line), &c) == nil && c.Alive {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " ")
}

func (h *host) eventually(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s: not within 30 s: %s\nalive: %s\n%+v\n%s", h.name, what, h.alive(), h.status(), h.Tail())
		}
	}
}

// listening are the TCP ports of the cluster that are open in h's namespace.
func (h *host) listening() string {
	out, err := exec.Command("ip", "netns", "exec", h.name, "ss", "-Hltn", "sport = :2377 or sport = :2379 or sport = :2380").Output()
	h.must(err)
	return string(out)
}

func TestCluster(t *testing.T) {
	t.Parallel()
	h1, h2, h3 := newHost(t, 1), newHost(t, 2), newHost(t, 3)
	testAlone(h1)
	h1.Isle(t, "cluster", "init", "--name", "h1")
	testBadJoin(h1, h2)
	h2.join(h1)
	h3.join(h2)
	for _, h := range []*host{h1, h2, h3} {
		h.eventually("three hosts live", func() bool { return h.alive() == "h1 h2 h3" })
		h.eventually("nothing is wrong", func() bool {
			st := h.status()
			return st.Quorum && st.Leader != "" && len(st.Members) == 3 && st.Problem == "" && st.Lag < 100
		})
	}
	h2.refused("already in a cluster", "cluster", "init")
	testKill(h1, h2)
	testQuorumLoss(h1, h2, h3)
	testRemove(h1, h3)
	h2.Isle(t, "cluster", "leave")
	if l := h2.listening(); l != "" {
		t.Errorf("h2 has left, and listens: %s", l)
	}
	h1.eventually("it is alone", func() bool { return h1.alive() == "h1" && h1.status().Quorum })
	h1.Isle(t, "cluster", "leave")
	testAlone(h1)
	lab.Check(t)
}

// testAlone: a host in no cluster has nothing of one.
func testAlone(h *host) {
	h.t.Helper()
	for _, args := range [][]string{{"ls"}, {"status"}, {"token"}, {"leave"}, {"rm", "x"}} {
		h.refused("isle cluster init", append([]string{"cluster"}, args...)...)
	}
	if l := h.listening(); l != "" {
		h.t.Errorf("a host alone listens: %s", l)
	}
	if _, err := os.Stat(filepath.Join(h.Dir, "data", "cluster")); !os.IsNotExist(err) {
		h.t.Errorf("a host alone has files of a cluster: %v", err)
	}
}

// testBadJoin: who may not come in is told why.
func testBadJoin(at, h *host) {
	token := at.Isle(h.t, "cluster", "token", "-q")
	h.refused("damaged", "cluster", "join", token[:len(token)-1], "10.88.0.1")
	h.refused("no join token", "cluster", "join", "SWMTKN-1-x", "10.88.0.1")
	h.refused("already in the cluster", "cluster", "join", token, "10.88.0.1", "--name", "h1")
	h.refused("not an address of this host", "cluster", "join", token, "10.88.0.1", "--name", "h2", "--advertise", "10.88.0.77")
	at.Isle(h.t, "cluster", "token", "--rotate")
	h.refused("has expired", "cluster", "join", token, "10.88.0.1", "--name", "h2")
	h.Isle(h.t, "cluster", "init", "--name", "other")
	foreign := h.Isle(h.t, "cluster", "token", "-q")
	h.Isle(h.t, "cluster", "leave")
	h.refused("another cluster", "cluster", "join", foreign, "10.88.0.1", "--name", "h2")
	if got := at.alive(); got != "h1" {
		h.t.Errorf("after that the cluster has %s", got)
	}
}

// testKill: a host whose isled was killed is gone after its lease, and back with it.
func testKill(h, killed *host) {
	killed.Kill()
	h.eventually("the killed one is gone", func() bool { return h.alive() == "h1 h3" })
	h.must(killed.Start())
	for _, x := range []*host{h, killed} {
		x.eventually("all are back", func() bool { return x.alive() == "h1 h2 h3" })
	}
}

// testQuorumLoss: reading goes on, changes are refused with the reason, then all works.
func testQuorumLoss(h, a, b *host) {
	a.Kill()
	b.Kill()
	h.eventually("it is noticed", func() bool { st := h.status(); return !st.Quorum && strings.Contains(st.Problem, "no quorum") })
	if _, err := h.Try("cluster", "status"); err == nil {
		h.t.Error("status without a quorum succeeds")
	}
	h.refused("join token", "cluster", "token")
	h.Isle(h.t, "ps")
	h.must(a.Start())
	h.must(b.Start())
	h.eventually("all are back", func() bool { return h.alive() == "h1 h2 h3" && h.status().Problem == "" })
	h.Isle(h.t, "cluster", "token")
}

// testRemove: a removed host is refused, says so, and can join anew.
func testRemove(h, gone *host) {
	h.refused("isle cluster leave", "cluster", "rm", "h1")
	h.refused("no host", "cluster", "rm", "nobody")
	h.Isle(h.t, "cluster", "rm", gone.name)
	h.eventually("it is gone", func() bool { return h.alive() == "h1 h2" })
	gone.eventually("it knows that something is wrong", func() bool { return gone.status().Problem != "" })
	gone.Isle(h.t, "cluster", "leave", "--force")
	gone.join(h)
	h.eventually("it is back", func() bool { return h.alive() == "h1 h2 h3" })
	gone.Isle(h.t, "cluster", "leave")
	h.eventually("it has left", func() bool { return h.alive() == "h1 h2" })
}
