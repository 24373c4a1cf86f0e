package cluster

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"isle/api"
	"isle/test/lab"
)

// TestWays is two hosts with a router between them that takes smaller packets than their
// interfaces and says so to nobody. It looks after TCP, as many do:
//
//	w1 10.87.1.1 ─── 10.87.1.254 between 10.87.2.254 ─── w2 10.87.2.2
func TestWays(t *testing.T) {
	t.Parallel()
	w1, w2 := between(t)
	router := func(line string) { w1.must(shell("ip netns exec between " + line)) }
	router("ip link set to2 mtu 1400")
	router("nft 'table ip silent { chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }; chain through { type filter hook forward priority 0; tcp flags syn tcp option maxseg size set 1300; }; }'")
	w1.Isle(t, "cluster", "init", "--name", "w1")
	args := strings.Fields(w1.Isle(t, "cluster", "token"))
	out, err := w2.Try(append(args[1:], "--name", "w2")...)
	if err != nil || !strings.Contains(out, "WARNING") || !strings.Contains(out, "host w1") || !strings.Contains(out, "more than 135") || !strings.Contains(out, "black hole") {
		t.Errorf("w2 joins: %v: %s", err, out)
	}
	w1.Isle(t, "network", "create", "-d", "overlay", "app")
	w2.eventually("the network is there", func() bool { _, err := w2.Try("network", "inspect", "app"); return err == nil })
	for _, h := range []*host{w1, w2} {
		h.Isle(t, "run", "-d", "--name", "on-"+h.name, "--network", "app", "isle/toolbox", "sleep", "1000")
	}
	for h, other := range map[*host]string{w1: "w2", w2: "w1"} {
		h.eventually("it sees a black hole", func() bool {
			s := h.spanHost(other)
			return s.State == "narrow" && s.Fit == 1350 && !s.LastContact.IsZero() && h.tunnel(other) == "narrow"
		})
		if p := h.status().Problem; !strings.Contains(p, "host "+other) || !strings.Contains(p, "black hole") {
			t.Errorf("%s: the problem is %q", h.name, p)
		}
	}
	router("ip link set to2 mtu 1500")
	for _, h := range []*host{w1, w2} { // what is wrong is tried each minute: this is sooner
		h.Stop()
		h.must(h.Start())
	}
	for h, other := range map[*host]string{w1: "w2", w2: "w1"} {
		h.eventually("all is well", func() bool {
			return h.tunnel(other) == "up" && h.spanHost(other).State == "up" && h.status().Problem == ""
		})
	}
	w2.must(shell("ip -n w2 link set eth0 down"))
	w1.eventually("it does not answer", func() bool { return w1.spanHost("w2").State == "down" })
	last := w1.spanHost("w2").LastContact
	time.Sleep(6 * time.Second) // in which it is asked again
	if now := w1.spanHost("w2"); now.State != "down" || now.LastContact.After(last) {
		t.Errorf("w2 is away, and w1 sees %+v; its last contact was %s", now, last)
	}
	w2.must(shell("ip -n w2 link set eth0 up; ip -n w2 route add default via 10.87.2.254"))
	w1.eventually("it is back", func() bool { return w1.spanHost("w2").State == "up" })
	w2.Isle(t, "rm", "-f", "on-w2")
	w2.eventually("it can leave", func() bool { _, err := w2.Try("cluster", "leave"); return err == nil })
	w1.eventually("it is gone", func() bool { return w1.alive() == "w1" && w1.stations() == "" })
	if out, err := exec.Command("ip", "-n", "w2", "link", "show", "islep4789").CombinedOutput(); err == nil {
		t.Errorf("w2 has left, and has %s", out)
	}
	lab.Check(t)
}

// between makes the two, and the router.
func between(t *testing.T) (w1, w2 *host) {
	t.Helper()
	t.Cleanup(func() { shell("ip netns del between") })
	line := "ip netns add between; ip netns exec between sysctl -qw net.ipv4.ip_forward=1"
	for i := 1; i <= 2; i++ {
		t.Cleanup(func() { shell(fmt.Sprintf("ip netns del w%d", i)) })
		line += fmt.Sprintf(`
			ip netns add w%[1]d
			ip -n w%[1]d link set lo up
			ip -n between link add to%[1]d type veth peer name eth0 netns w%[1]d
			ip -n between addr add 10.87.%[1]d.254/24 dev to%[1]d
			ip -n between link set to%[1]d up
			ip -n w%[1]d addr add 10.87.%[1]d.%[1]d/24 dev eth0
			ip -n w%[1]d link set eth0 up
			ip -n w%[1]d route add default via 10.87.%[1]d.254`, i)
	}
	if err := shell(line); err != nil {
		t.Fatal(err)
	}
	return begin(t, "w1", usual), begin(t, "w2", usual)
}

// tunnel is how h says that tunnels to another host are.
func (h *host) tunnel(other string) string {
	out, err := h.Try("cluster", "ls", "--format", "json")
	if err != nil {
		return out
	}
	for line := range strings.Lines(out) {
		var c api.ClusterHost
		if json.Unmarshal([]byte(line), &c) == nil && c.Name == other && c.Alive {
			return c.Tunnel
		}
	}
	return ""
}

// spanHost is what h says of another host on network app.
func (h *host) spanHost(other string) (found api.SpanHost) {
	out, err := h.Try("network", "inspect", "--verbose", "app")
	var all []struct{ Cluster api.NetworkSpan }
	if err != nil || json.Unmarshal([]byte(out), &all) != nil || len(all) != 1 {
		return found
	}
	for _, s := range all[0].Cluster.Hosts {
		if s.Name == other {
			found = s
		}
	}
	return found
}

// stations are the hosts to which h tries the way.
func (h *host) stations() (all string) {
	for _, e := range h.entries("bridge", "fdb", "show", "dev", "islep4789") {
		if e.Dst != "" {
			all += e.Dst + " "
		}
	}
	return all
}
