package cluster

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSite is one life of five hosts. After each of its chapters every host has what etcd
// says, and nothing else.
func TestSite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.joinFive()
	s.populate()
	t.Run("Kill", s.child(killIsled))
	t.Run("Direct", s.child(direct))
	t.Run("Reuse", s.child(reuse))
	t.Run("HostDies", s.child(hostDies))
	t.Run("Partition", s.child(partition))
	t.Run("Strangers", s.child(strangers))
	t.Run("Forged", s.child(forged))
	t.Run("Malformed", s.child(malformed))
	t.Run("Subnets", s.child(subnetsOfHosts))
	t.Run("Far", s.child((*site).lossy))
	t.Run("Rolling", s.child(rolling))
	t.Run("MemberLoss", s.child(memberLoss))
	t.Run("QuorumLoss", s.child(quorumLoss))
	t.Run("Many", s.child(many))
	s.only()
}

// child runs a chapter on s; the next ones make no sense when it fails.
func (s *site) child(f func(*site)) func(*testing.T) {
	return func(t *testing.T) {
		parent := s.t
		defer func() { s.use(parent) }()
		s.use(t)
		if parent.Failed() {
			t.Fatal("left out: after an earlier failure nobody knows what should be there")
		}
		begin := time.Now()
		f(s)
		t.Logf("%.1f s", time.Since(begin).Seconds())
	}
}

func (s *site) use(t *testing.T) {
	s.t = t
	for _, h := range s.all {
		h.t = t
	}
}

// joinFive: the members are the first, third and fourth, so that neither segment has all of them.
func (s *site) joinFive() {
	s.all[0].Isle(s.t, "cluster", "init", "--name", s.all[0].name)
	for _, i := range []int{2, 3, 1, 4} {
		s.all[i].join(s.all[0])
	}
	s.gathered(s.all...)
}

// populate makes two networks, and a container on each host that is on both.
func (s *site) populate() {
	s.all[0].Isle(s.t, "network", "create", "-d", "overlay", "--subnet", "10.70.0.0/24", "app")
	s.all[4].Isle(s.t, "network", "create", "-d", "overlay", "--ipv6", "wide")
	for _, h := range s.all {
		h.eventually("it has the networks", func() bool {
			out, err := h.Try("network", "ls", "--format", "{{.Name}}")
			return err == nil && strings.Contains(out, "app") && strings.Contains(out, "wide")
		})
	}
	for i, h := range s.all {
		h.run(fmt.Sprint("c", i+1))
	}
	s.model(s.all[2], s.all...)
}

// many has 200 endpoints: 20 containers on each host, on two networks.
func many(s *site) {
	s.each(func(h *host) {
		for n := range 20 {
			if out, err := h.Try("run", "-d", "--name", fmt.Sprintf("%s-%d", h.name, n), "--network", "app", "--network", "wide", "isle/toolbox", "sleep", "100000"); err != nil {
				s.t.Errorf("%s: %v: %s", h.name, err, out)
			}
		}
	})
	s.model(s.all[2], s.all...)
	s.each(func(h *host) { h.clearOut() })
	s.model(s.all[2], s.all...)
}

// box is a container that runs.
func (s *site) box(n int, name string) box {
	h := s.all[n-1]
	return box{h, name, h.Isle(s.t, "inspect", "-f", "{{.State.Pid}}", name)}
}

// on is its address on app.
func (b box) on(network string) string {
	return b.Isle(b.t, "inspect", "-f", "{{(index .NetworkSettings.Networks \""+network+"\").IPAddress}}", b.name)
}

// killIsled: kill -9 ends no flow, and what is started again changes nothing.
func killIsled(s *site) {
	c1, c4 := s.box(1, "c1"), s.box(4, "c4")
	f := connect(s.t, c1, c4, c4.on("app"))
	before, gone := s.all[3].kernel(), s.all[3].watch()
	goesOn(s.t, f, "kill -9 of isled", func() {
		s.all[3].Kill()
		if got := s.all[3].kernel(); !slices.Equal(got, before) {
			s.t.Errorf("with isled something has gone: %s", unlike(s.all[3].name, before, got))
		}
		s.must(s.all[3].Start())
		s.gathered(s.all...)
	})
	if got := s.all[3].kernel(); !slices.Equal(got, before) {
		s.t.Errorf("the restart has changed something: %s", unlike(s.all[3].name, before, got))
	}
	if said := gone(); said != "" {
		s.t.Errorf("gone in between: %s", said)
	}
	s.model(s.all[2], s.all...)
}

// watch notes what goes from the kernel, be it for a moment, until it is asked. What is
// said again as it is does not count.
func (h *host) watch() func() string {
	out := new(bytes.Buffer)
	cmd := exec.Command("sh", "-c", "bridge -n "+h.name+" monitor fdb & ip -n "+h.name+" monitor route link; wait")
	cmd.Stdout, cmd.SysProcAttr = out, &syscall.SysProcAttr{Setpgid: true}
	h.must(cmd.Start())
	return func() (said string) {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		cmd.Wait()
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "Deleted") && strings.Contains(line, "isle") {
				said += line
			}
		}
		return said
	}
}

// reuse: who gets an address of another container, on another host, is reached at once
// also by those that talked to the other.
func reuse(s *site) {
	c1, c2 := s.box(1, "c1"), s.box(2, "c2")
	addr := c2.on("app")
	s.must(connect(s.t, c1, c2, addr).pass())
	s.all[1].Isle(s.t, "rm", "-f", "c2")
	heir := s.all[4].run("heir", "--ip", addr)
	s.must(connect(s.t, c1, heir, addr).pass())
	s.all[1].run("c2")
	s.model(s.all[2], s.all...)
}
