package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"isle/test/lab"
)

// site is five hosts in two segments, on one switch, with a router between them. Each
// test has one of its own; this is the first, a:
//
//	              a-switch                              a-router
//	a1 10.89.1.1 ─┬─ west ─┬─ r-west ─ west 10.89.1.254 ─┐
//	a2 10.89.1.2 ─┘        └ d-west (see delay)          ├─ foot 10.89.0.2 ─── the test
//	a3 10.89.2.3 ─┐                                      │
//	a4 10.89.2.4 ─┼─ east ─── r-east ─ east 10.89.2.254 ─┘
//	a5 10.89.2.5 ─┘
//
// A cut is silence: what was the port of a bridge is none, and no carrier is lost.
type site struct {
	t    *testing.T
	name string  // a letter
	net  int     // its addresses are 10.net.0.0/16
	kind kind    // of hosts
	all  []*host // a1 is all[0]
	seen names   // that any endpoint ever had
	far  *delay  // nil: the segments are near each other
}

// sites is how many there are.
var sites atomic.Int32

const routing = `ip netns add $S-switch
	ip netns add $S-router
	ip -n $S-router link set lo up
	ip netns exec $S-router sysctl -qw net.ipv4.ip_forward=1
	ip link add $S-foot type veth peer name foot netns $S-router
	ip addr add 10.$N.0.1/30 dev $S-foot
	ip link set $S-foot up
	ip -n $S-router addr add 10.$N.0.2/30 dev foot
	ip -n $S-router link set foot up
	ip route add 10.$N.0.0/16 via 10.$N.0.2
	ip -n $S-router route add default via 10.$N.0.1`

const segment = `ip -n $S-switch link add %[1]s type bridge
	ip -n $S-switch link set %[1]s up
	ip -n $S-switch link add r-%[1]s type veth peer name %[1]s netns $S-router
	ip -n $S-switch link set r-%[1]s master %[1]s up
	ip -n $S-router addr add 10.$N.%[2]d.254/24 dev %[1]s
	ip -n $S-router link set %[1]s up`

const wiring = `ip netns add %[1]s
	ip -n %[1]s link set lo up
	ip -n $S-switch link add %[1]s type veth peer name eth0 netns %[1]s
	ip -n $S-switch link set %[1]s master %[2]s up
	ip -n %[1]s addr add 10.$N.%[3]d.%[4]d/24 dev eth0
	ip -n %[1]s link set eth0 up
	ip -n %[1]s route add default via 10.$N.%[3]d.254`

// newSite makes the segments, and hosts that are in no cluster yet, with a short lease.
func newSite(t *testing.T) *site { return newSiteOf(t, usual) }

func newSiteOf(t *testing.T, k kind) *site {
	t.Helper()
	n := int(sites.Add(1)) - 1
	s := &site{t: t, name: string(rune('a' + n)), net: 89 + n, kind: k, seen: names{}}
	t.Cleanup(func() { shell(s.here("ip netns del $S-switch; ip netns del $S-router")) })
	s.do(routing)
	for i, name := range []string{"west", "east"} {
		s.do(segment, name, i+1)
	}
	for n := 1; n <= 5; n++ {
		s.all = append(s.all, s.newHost(n))
	}
	t.Cleanup(s.end)
	return s
}

// end takes all hosts down at once: the last ones of a cluster would wait for the others.
func (s *site) end() {
	s.each(func(h *host) { h.clearOut() })
	s.each(func(h *host) { h.Clear() })
}

// each does something on all hosts at once.
func (s *site) each(do func(*host)) {
	var wg sync.WaitGroup
	for _, h := range s.all {
		wg.Go(func() { do(h) })
	}
	wg.Wait()
}

// clearOut removes the containers of a host, if it answers.
func (h *host) clearOut() {
	if ids, err := h.Try("ps", "-aq"); err == nil && strings.TrimSpace(ids) != "" {
		h.Try(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
}

// newHost makes a host: up to the second it is in the west.
func (s *site) newHost(n int) *host {
	s.t.Helper()
	name, where, net := fmt.Sprint(s.name, n), "west", 1
	if n > 2 {
		where, net = "east", 2
	}
	s.t.Cleanup(func() { shell("ip netns del " + name) })
	s.do(wiring, name, where, net, n)
	return begin(s.t, name, s.kind)
}

// here is a line with the site's own names in it.
func (s *site) here(line string) string {
	return strings.NewReplacer("$S", s.name, "$N", strconv.Itoa(s.net)).Replace(line)
}

func (s *site) do(format string, args ...any) {
	s.t.Helper()
	s.must(shell(fmt.Sprintf(s.here(format), args...)))
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// cut takes a port of the switch out: that of a host, or r-west, between the segments.
func (s *site) cut(port string) { s.do("ip -n $S-switch link set %s nomaster", port) }

func (s *site) heal(port string) { s.do("ip -n $S-switch link set %s master %s", port, s.side(port)) }

// side is the bridge that a port is of.
func (s *site) side(port string) string {
	for _, h := range s.all[2:] {
		if port == h.name {
			return "east"
		}
	}
	return "west"
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
