package cluster

import (
	"fmt"
	"strings"
	"testing"

	"isle/test/lab"
)

// site is five hosts in two segments, on one switch, with a router between them:
//
//	            switch                              router
//	h1 10.89.1.1 ─┬─ west ─── west 10.89.1.254 ─┐
//	h2 10.89.1.2 ─┘                             ├─ foot 10.89.0.2 ─── the test
//	h3 10.89.2.3 ─┐                             │
//	h4 10.89.2.4 ─┼─ east ─── east 10.89.2.254 ─┘
//	h5 10.89.2.5 ─┘
//
// A cut is silence: the port of the switch drops, and no carrier is lost.
type site struct {
	t    *testing.T
	all  []*host // h1 is all[0]
	seen names   // that any endpoint ever had
}

const routing = `ip netns add switch
	ip netns add router
	ip -n router link set lo up
	ip netns exec router sysctl -qw net.ipv4.ip_forward=1
	ip link add foot type veth peer name foot netns router
	ip addr add 10.89.0.1/30 dev foot
	ip link set foot up
	ip -n router addr add 10.89.0.2/30 dev foot
	ip -n router link set foot up
	ip route add 10.89.0.0/16 via 10.89.0.2
	ip -n router route add default via 10.89.0.1`

const segment = `ip -n switch link add %[1]s type bridge
	ip -n switch link set %[1]s up
	ip -n switch link add r-%[1]s type veth peer name %[1]s netns router
	ip -n switch link set r-%[1]s master %[1]s up
	ip -n router addr add 10.89.%[2]d.254/24 dev %[1]s
	ip -n router link set %[1]s up`

const wiring = `ip netns add %[1]s
	ip -n %[1]s link set lo up
	ip -n switch link add %[1]s type veth peer name eth0 netns %[1]s
	ip -n switch link set %[1]s master %[2]s up
	ip -n %[1]s addr add 10.89.%[3]d.%[4]d/24 dev eth0
	ip -n %[1]s link set eth0 up
	ip -n %[1]s route add default via 10.89.%[3]d.254`

// newSite makes the segments, and hosts that are in no cluster yet.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, seen: names{}}
	t.Cleanup(func() { shell("ip netns del switch; ip netns del router") })
	s.must(shell(routing))
	for i, name := range []string{"west", "east"} {
		s.must(shell(fmt.Sprintf(segment, name, i+1)))
	}
	for n := 1; n <= 5; n++ {
		name, where, net := fmt.Sprint("h", n), "west", 1
		if n > 2 {
			where, net = "east", 2
		}
		t.Cleanup(func() { shell("ip netns del " + name) })
		s.must(shell(fmt.Sprintf(wiring, name, where, net, n)))
		s.all = append(s.all, begin(t, name))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// cut takes a port of the switch out: that of a host, or r-west, between the segments.
func (s *site) cut(port string) { s.must(shell("bridge -n switch link set dev " + port + " state 0")) }

func (s *site) heal(port string) {
	s.must(shell("bridge -n switch link set dev " + port + " state 3"))
}

// die is the end of a host for the others: its port is dark and its isled is gone.
func (s *site) die(h *host) {
	s.cut(h.name)
	h.Kill()
}

func (s *site) revive(h *host) {
	s.heal(h.name)
	s.must(h.Start())
}

func (s *site) named(hosts ...*host) string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.name)
	}
	return strings.Join(all, " ")
}

// gathered waits until the hosts agree that they live, and nobody else.
func (s *site) gathered(hosts ...*host) {
	s.t.Helper()
	for _, h := range hosts {
		h.eventually("alive are "+s.named(hosts...), func() bool { return h.alive() == s.named(hosts...) })
	}
}

// box is a container on the overlay networks.
type box struct {
	*host
	name, pid string
}

// run starts a container; args come before the image.
func (h *host) run(name string, args ...string) box {
	h.t.Helper()
	args = append([]string{"run", "-d", "--name", name, "--network", "app", "--network", "wide"}, args...)
	h.Isle(h.t, append(args, "isle/toolbox", "sleep", "100000")...)
	return box{h, name, h.Isle(h.t, "inspect", "-f", "{{.State.Pid}}", name)}
}

// only: a host of the lab leaves nothing of others changed.
func (s *site) only() { lab.Check(s.t) }
