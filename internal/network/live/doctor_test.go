package live_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/probe"
	"isle/internal/network"
	"isle/internal/network/exposure"
	"isle/internal/network/publish"
)

// TestExposureAndDoctor: what is said of a port is what a neighbour finds, and what
// is wrong is named.
func TestExposureAndDoctor(t *testing.T) {
	h := newHost(t, true)
	neighbour := lan(t)
	run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	m := h.running()
	m.Surroundings = onlyOurs(h.kernel).Surroundings
	h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}, api.MustParsePort("81/tcp"): {{HostIP: loopback, HostPort: "8081"}}}, "bridge")
	h.serve("web", "0.0.0.0:80")
	check := func(when, verdict, cause string) {
		t.Helper()
		exposed, err := m.Exposure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(exposed) != 1 || exposed[0].Address != "192.0.2.1" || exposed[0].Port != 8080 || exposed[0].Network != "bridge" || exposed[0].Verdict != verdict ||
			!strings.Contains(exposed[0].Reason, cause) {
			t.Errorf("%s: exposed %+v", when, exposed)
		}
		c, err := reach(neighbour.File, "192.0.2.1:8080", time.Second)
		if err == nil {
			c.Close()
		}
		if (err == nil) != (verdict == exposure.Reachable) {
			t.Errorf("%s: %s, and a neighbour finds %v", when, verdict, err)
		}
		found, err := m.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if (len(found) > 0) != (cause != "") || cause != "" && !strings.Contains(fmt.Sprint(found), cause) {
			t.Errorf("%s: found %+v", when, found)
		}
	}
	check("healthy", exposure.Reachable, "")
	run(t, "iptables", "-P", "FORWARD", "DROP")
	check("FORWARD drops", exposure.Blocked, "the policy of chain FORWARD of table ip filter")
	run(t, "iptables", "-P", "FORWARD", "ACCEPT")
	run(t, "nft", "add", "table", "inet", "mine")
	run(t, "nft", "add", "chain", "inet", "mine", "pre", "{ type filter hook prerouting priority -300; }")
	run(t, "nft", "add", "rule", "inet", "mine", "pre", "iifname", "up0", "tcp", "dport", "8080", "drop")
	check("a rule before everything", exposure.Blocked, `(iifname "up0" tcp dport 8080 drop)`)
	run(t, "nft", "delete", "table", "inet", "mine")
	check("healthy again", exposure.Reachable, "")
	run(t, "nft", "delete", "table", "ip", "filter")
}

// TestOwnPortsWithoutICC: containers that may not talk to each other reach each
// other's published ports by the host's address. Where br_netfilter translates
// inside of the bridge they do not, since the bridge's ports stay isolated: the doctor
// says it.
func TestOwnPortsWithoutICC(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	m.Surroundings = onlyOurs(h.kernel).Surroundings
	lan(t)
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "apart", Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"}}); err != nil {
		t.Fatal(err)
	}
	h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "apart")
	h.open(m, "c1", nil, "apart")
	h.serve("web", "0.0.0.0:80")
	const setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	was, err := os.ReadFile(setting)
	if err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "br_netfilter", Err: err})
	}
	t.Cleanup(func() { _ = os.WriteFile(setting, was, 0o644) })
	for filter, reached := range map[string]bool{"0": true, "1": false} {
		if err := os.WriteFile(setting, []byte(filter), 0o644); err != nil {
			t.Fatal(err)
		}
		h.reach("c1", netip.MustParseAddrPort("192.0.2.1:8080"), reached, "bridge-nf-call-iptables="+filter)
		found, err := m.Doctor(t.Context())
		if err != nil || strings.Contains(fmt.Sprint(found), "of the same network") == reached {
			t.Errorf("bridge-nf-call-iptables=%s: found %+v, %v", filter, found, err)
		}
	}
}

// TestRelayedPortIsJudged: a port of a network without IPv4, on the host's IPv4
// address, is exposed as the neighbour finds it.
func TestRelayedPortIsJudged(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	m.Surroundings = onlyOurs(h.kernel).Surroundings
	neighbour := lan(t)
	yes, no := true, false
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	req := network.OpenRequest{ID: "web", Name: "web", Networks: []network.ConnectRequest{{Network: "six", ContainerName: "web", ContainerID: "web"}}}
	req.Ports.Specs = []publish.Spec{{Proto: "tcp", HostPort: 9804, Count: 1, ContainerPort: 80, From: "192.0.2.0/24"}}
	if _, err := m.Open(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	h.serve("web", "[::]:80")
	check := func(when, verdict, cause string) {
		t.Helper()
		exposed, err := m.Exposure(t.Context())
		if err != nil || len(exposed) != 1 || exposed[0].Port != 9804 || exposed[0].By != "relayed" || exposed[0].From != "192.0.2.0/24" || exposed[0].Verdict != verdict {
			t.Errorf("%s: exposed %+v, %v", when, exposed, err)
		}
		c, err := reach(neighbour.File, "192.0.2.1:9804", 500*time.Millisecond)
		if err == nil {
			c.Close()
		}
		if (err == nil) != (verdict == exposure.Reachable) {
			t.Errorf("%s: %s, and a neighbour finds %v", when, verdict, err)
		}
		if found, err := m.Doctor(t.Context()); err != nil || !strings.Contains(fmt.Sprint(found), cause) || (cause == "") != (len(found) == 0) {
			t.Errorf("%s: found %+v, %v", when, found, err)
		}
	}
	check("healthy", exposure.Reachable, "")
	run(t, "nft", "add", "table", "inet", "mine")
	run(t, "nft", "add", "chain", "inet", "mine", "in", "{ type filter hook input priority 0; policy drop; }")
	check("INPUT drops", exposure.Blocked, "nft insert rule inet mine in tcp dport 9804 accept")
	run(t, "nft", "delete", "table", "inet", "mine")
}

// TestUplinkIsNoBridge: who asks for a bridge with the name of an uplink is not told
// to delete that.
func TestUplinkIsNoBridge(t *testing.T) {
	h := newHost(t, false)
	m := h.start()
	defer stop(m)
	lan(t)
	_, err := m.Create(t.Context(), api.CreateRequest{Name: "app", Options: map[string]string{"com.docker.network.bridge.name": "up0"}})
	if err == nil || !strings.Contains(err.Error(), "link up0 exists and is not ours (hint: take another name") || strings.Contains(err.Error(), "delete") {
		t.Errorf("%v", err)
	}
	run(t, "ip", "link", "show", "up0")
}
