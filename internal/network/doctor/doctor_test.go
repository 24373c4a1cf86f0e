package doctor_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/foreign"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
	"isle/internal/network/doctor"
	"isle/internal/network/exposure"
	"isle/internal/ruleset"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func state(objs ...netspec.Object) netspec.State {
	s := netspec.State{}
	s.Add(objs...)
	return s
}

// healthy is a host with one network, app behind isle-app, and one container, web,
// whose port 80 is published at 8080.
func healthy(rules *ruleset.Ruleset) (doctor.Host, []exposure.Network, []exposure.Container) {
	h := doctor.Host{
		Host: exposure.Host{
			Interfaces: []exposure.Interface{
				{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{pfx("127.0.0.1/8")}},
				{Name: "eth0", Up: true, Addrs: []netip.Prefix{pfx("192.0.2.1/24")}},
				{Name: "isle-app", Up: true, Ours: true, Addrs: []netip.Prefix{pfx("10.1.0.1/24")}},
			},
			Rules: rules, Forward4: true, Forward6: true,
		},
		Way4: doctor.Way{Interface: "eth0", MTU: 1500}, Ways: []string{"eth0"}, Strict: []string{"eth0"},
		Flows: 10, MostOf: 1000, NeedForwarding: true,
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("127.0.0.53:53")},
	}
	app := exposure.Network{Name: "app", State: state(
		netspec.Link{Name: "isle-app", Kind: netspec.Bridge, MTU: 1500},
		netspec.Segment{Link: "isle-app", Subnet: pfx("10.1.0.0/24"), Masquerade: true})}
	web := exposure.Container{Name: "web", State: state(
		netspec.Addr{NS: "web", Link: "eth0", Prefix: pfx("10.1.0.2/24")},
		netspec.Publish{
			Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8080, Count: 1,
			To: netip.MustParseAddr("10.1.0.2"), ToPort: 80, Link: "isle-app",
		})}
	return h, []exposure.Network{app}, []exposure.Container{web}
}

func examine(t *testing.T, ns kerneltest.NS) []doctor.Finding {
	t.Helper()
	rules, err := foreign.Read(ns.File, "isle")
	if err != nil {
		t.Fatal(err)
	}
	return doctor.Examine(healthy(rules))
}

func host(t *testing.T) kerneltest.NS {
	ns := kerneltest.NewNS(t)
	ns.IP(`link add eth0 type bridge
		link set eth0 up
		addr add 192.0.2.1/24 dev eth0
		link add isle-app type bridge`)
	return ns
}

// TestRules: the doctor names the rule that stops something, and what it advises
// helps: what it printed is run as it is.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		what, setup string
		want        []string // "subject: cause", of each finding
		hint        string
	}{
		{"nothing", "true", nil, ""},
		{
			"rules that concern nobody", "nft add table inet f && nft add chain inet f c '{ type filter hook input priority 0; policy drop; }' && " +
				"nft add chain inet f d '{ type filter hook forward priority 0; }' && nft add rule inet f d iifname wlan0 drop", nil, "",
		},
		{
			"docker: FORWARD drops", dockerRules,
			[]string{"this host: the policy of chain FORWARD of table ip filter (drop)"},
			"iptables -I DOCKER-USER -i isle-app -j ACCEPT && iptables -I DOCKER-USER -o isle-app -j ACCEPT",
		},
		{
			"iptables: FORWARD rejects at its end", "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT && iptables -A FORWARD -j REJECT",
			[]string{"this host: rule 3 in chain FORWARD of table ip filter (reject)"},
			"iptables -I FORWARD -i isle-app -j ACCEPT && iptables -I FORWARD -o isle-app -j ACCEPT",
		},
		{
			"a port dropped", "nft add table inet mine && nft add chain inet mine filt '{ type filter hook forward priority -5; }' && nft add rule inet mine filt iifname eth0 tcp dport 80 drop",
			[]string{`port 8080/tcp of container web: rule 2 in chain filt of table inet mine (iifname "eth0" tcp dport 80 drop)`},
			"nft insert rule inet mine filt iifname isle-app accept && nft insert rule inet mine filt oifname isle-app accept",
		},
		{
			"a port dropped before it is forwarded", "nft add table inet mine && nft add chain inet mine pre '{ type filter hook prerouting priority -300; }' && nft add rule inet mine pre tcp dport 8080 drop",
			[]string{"port 8080/tcp of container web: rule 2 in chain pre of table inet mine (tcp dport 8080 drop)"},
			"nft delete rule inet mine pre handle 2",
		},
		{
			"a port that another takes", "nft add table ip other && nft add chain ip other pre '{ type nat hook prerouting priority -110; }' && nft add rule ip other pre tcp dport 8080 dnat to 192.0.2.9",
			[]string{"port 8080/tcp of container web: sent elsewhere by rule 2 in chain pre of table ip other (tcp dport 8080 dnat)"}, "",
		},
		{
			"no questions of names", "nft add table inet mine && nft add chain inet mine out '{ type filter hook output priority 0; }' && nft add rule inet mine out oifname != lo udp dport 53 reject",
			[]string{`name server 192.0.2.53:53: rule 2 in chain out of table inet mine (oifname != "lo" udp dport 53 reject)`},
			"nft insert rule inet mine out udp dport 53 accept",
		},
	} {
		t.Run(tt.what, func(t *testing.T) {
			ns := host(t)
			ns.Run("bash", "-e", "-c", tt.setup)
			found := examine(t, ns)
			if got := texts(found); strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Fatalf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if tt.hint == "" {
				return
			}
			for _, f := range found {
				if f.Hint != tt.hint {
					t.Errorf("hint %q, want %q", f.Hint, tt.hint)
				}
			}
			ns.Run("bash", "-e", "-c", tt.hint)
			if found := examine(t, ns); len(found) > 0 {
				t.Errorf("after doing as it said: %v", texts(found))
			}
		})
	}
}

// dockerRules are what Docker's daemon makes of an empty host, in short.
const dockerRules = `iptables-restore <<EOF
*filter
:FORWARD DROP
:DOCKER-USER -
:DOCKER-FORWARD -
:DOCKER -
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER ! -i docker0 -o docker0 -j DROP
COMMIT
EOF`

func texts(found []doctor.Finding) (out []string) {
	for _, f := range found {
		out = append(out, f.Subject+": "+f.Cause)
	}
	return out
}

// TestUFW: the real ufw, as Debian ships it, switched on.
func TestUFW(t *testing.T) {
	if _, err := exec.LookPath("ufw"); err != nil || os.Geteuid() != 0 {
		t.Skip(&probe.NotSupportedError{Feature: "running ufw", Err: err})
	}
	ns := host(t)
	over(t, "/etc/ufw")
	ns.Run("ufw", "--force", "enable")
	found := examine(t, ns)
	if len(found) != 1 || found[0].Subject != "this host" {
		t.Fatalf("found %v", texts(found))
	}
	for _, f := range found {
		if !strings.Contains(f.Cause, "of table ip filter") || f.Hint != "ufw route allow in on isle-app && ufw route allow out on isle-app" {
			t.Errorf("%+v", f)
		}
	}
	t.Log(found[0].Cause)
	ns.Run("bash", "-e", "-c", found[0].Hint)
	if found := examine(t, ns); len(found) > 0 {
		t.Errorf("after doing as it said: %v", texts(found))
	}
}

// TestForwardingIsSaidOnce: that a family is not forwarded is not told for each port
// again, and does not hide what stops the other.
func TestForwardingIsSaidOnce(t *testing.T) {
	drop := ruleset.Rule{Handle: 4, Text: "drop", Steps: []ruleset.Step{ruleset.Ports{Dest: [][2]uint16{{8080, 8080}}}, ruleset.End{Verdict: ruleset.Verdict{Code: ruleset.Drop}}}}
	h, networks, containers := healthy(&ruleset.Ruleset{Chains: []ruleset.Chain{{Family: "inet", Table: "t", Name: "c", Hook: ruleset.Prerouting, Rules: []ruleset.Rule{drop}}}})
	networks[0].State.Add(netspec.Segment{Link: "isle-app", Subnet: pfx("fd00::/64")})
	h.Forward6 = false
	want := "this host: somebody has switched off net.ipv6.conf.all.forwarding\nport 8080/tcp of container web: rule 4 in chain c of table inet t (drop)"
	if got := strings.Join(texts(doctor.Examine(h, networks, containers)), "\n"); got != want {
		t.Errorf("found\n%s\nwant\n%s", got, want)
	}
	h.Forward4, h.Forward6 = false, true
	want = "this host: somebody has switched off net.ipv4.ip_forward"
	if got := strings.Join(texts(doctor.Examine(h, networks, containers)), "\n"); got != want {
		t.Errorf("found\n%s\nwant\n%s", got, want)
	}
}

// over puts a copy over a directory, in this test's own mount namespace.
func over(t *testing.T, dir string) {
	t.Helper()
	kept := t.TempDir()
	for _, step := range []func() error{
		func() error { return exec.Command("cp", "-a", dir+"/.", kept).Run() },
		func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		func() error { return exec.Command("cp", "-a", kept+"/.", dir).Run() },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// TestSettings: what is wrong with the host itself.
func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		what             string
		harm             func(*doctor.Host, []exposure.Network)
		severity, expect string
		hint             string
	}{
		{"forwarding", func(h *doctor.Host, _ []exposure.Network) { h.Forward4 = false }, doctor.Error, "this host: somebody has switched off net.ipv4.ip_forward", "sysctl -w net.ipv4.ip_forward=1"},
		{"forwarding of IPv6", func(h *doctor.Host, ns []exposure.Network) {
			h.Forward6 = false
			ns[0].State.Add(netspec.Segment{Link: "isle-app", Subnet: pfx("fd00::/64")})
		}, doctor.Error, "this host: somebody has switched off net.ipv6.conf.all.forwarding", "sysctl -w net.ipv6.conf.all.forwarding=1"},
		{"table nearly full", func(h *doctor.Host, _ []exposure.Network) { h.Flows = 950 }, doctor.Warning, "this host: the table of connections holds 950 of at most 1000", "nf_conntrack_max=2000"},
		{"a port not held", func(h *doctor.Host, _ []exposure.Network) {
			h.Unheld = []doctor.Unheld{{Container: "web", Proto: "udp", Port: 8000, Count: 10, Err: errors.New("another program of this host has it")}}
		}, doctor.Warning, "port 8000-8009/udp of container web: isled could not take it when it started: another program of this host has it", "ss -anpH 'sport >= :8000 and sport <= :8009'"},
		{"table full", func(h *doctor.Host, _ []exposure.Network) { h.Flows = 1000 }, doctor.Error, "this host: the table of connections holds 1000 of at most 1000", "nf_conntrack_max=2000"},
		{"MTU", func(h *doctor.Host, _ []exposure.Network) { h.Way4.MTU = 1380 }, doctor.Warning, "network app: its MTU is 1500, and that of the way out over eth0 is 1380", "with -o com.docker.network.driver.mtu=1380,"},
		{"MTU too small for IPv6", func(h *doctor.Host, _ []exposure.Network) { h.Way4.MTU = 1200 }, doctor.Warning, "network app: its MTU is 1500, and that of the way out over eth0 is 1200", "with --ipv6=false -o com.docker.network.driver.mtu=1200,"},
		{"overlap", func(h *doctor.Host, _ []exposure.Network) {
			h.Overlaps = map[string][]string{"app": {"route 10.0.0.0/8 on tun0"}}
		}, doctor.Warning, "network app: its subnet overlaps with route 10.0.0.0/8 on tun0", "isle network rm app"},
		{"removed in the cluster", func(h *doctor.Host, _ []exposure.Network) {
			h.Removed = map[string]doctor.Removed{"app": {ID: "3f2a", Containers: []string{"db", "web"}}}
		}, doctor.Warning, "network app: this host could not be reached when it was removed", "isle network disconnect 3f2a db; isle network disconnect 3f2a web"},
		{"overlap of the default network", func(h *doctor.Host, ns []exposure.Network) {
			ns[0].Name = "bridge"
			h.Overlaps = map[string][]string{"bridge": {"route 10.0.0.0/8 on tun0"}}
		}, doctor.Warning, "network bridge: its subnet overlaps with route 10.0.0.0/8 on tun0", "network.subnet in isled.toml"},
		{"strict filter on the second way", func(h *doctor.Host, _ []exposure.Network) {
			h.Ways, h.Strict = []string{"eth0", "wwan0"}, []string{"eth0", "wwan0"}
		}, doctor.Warning, "interface wwan0: packets from them are expected by eth0 only (net.ipv4.conf.wwan0.rp_filter is 1)", "rp_filter=2"},
		{"iptables within a bridge", func(h *doctor.Host, _ []exposure.Network) {
			h.BridgeFilter = true
			h.Rules.Chains = []ruleset.Chain{{Family: "ip", Table: "filter", Name: "FORWARD", Hook: ruleset.Forward, Drop: true}}
		}, doctor.Error, "this host: the policy of chain FORWARD of table ip filter (drop)", "iptables -I FORWARD"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h, networks, containers := healthy(&ruleset.Ruleset{})
			if found := doctor.Examine(h, networks, containers); len(found) > 0 {
				t.Fatalf("a healthy host: %v", texts(found))
			}
			tt.harm(&h, networks)
			found := doctor.Examine(h, networks, containers)
			for _, f := range found {
				if f.Subject+": "+f.Cause == tt.expect && f.Severity == tt.severity && strings.Contains(f.Hint, tt.hint) && f.Problem != "" {
					return
				}
			}
			t.Errorf("found %+v, want %s: %s", found, tt.severity, tt.expect)
		})
	}
}

// TestOneFindingForARule: whatever a policy stops is one finding, which names the
// families, and what it advises is for all of it.
func TestOneFindingForARule(t *testing.T) {
	h, networks, containers := healthy(&ruleset.Ruleset{Chains: []ruleset.Chain{{Family: "inet", Table: "t", Name: "c", Hook: ruleset.Forward, Drop: true}}})
	h.Way6, h.BridgeFilter = h.Way4, true
	networks[0].State.Add(netspec.Segment{Link: "isle-app", Subnet: pfx("fd00::/64")})
	networks = append(networks, exposure.Network{Name: "old", State: state(
		netspec.Link{Name: "isle-old", Kind: netspec.Bridge, MTU: 1500}, netspec.Segment{Link: "isle-old", Subnet: pfx("10.2.0.0/24")})})
	found := doctor.Examine(h, networks, containers)
	const nft = "nft insert rule inet t c iifname isle-app accept && nft insert rule inet t c oifname isle-app accept && " +
		"nft insert rule inet t c iifname isle-old accept && nft insert rule inet t c oifname isle-old accept"
	want := doctor.Finding{
		Severity: doctor.Error, Subject: "this host",
		Problem: "containers of network app do not get out over eth0 (IPv4, IPv6); containers of network app do not reach each other, for net.bridge.bridge-nf-call-iptables is 1 (IPv4, IPv6); " +
			"containers of network old do not get out over eth0 (IPv4); containers of network old do not reach each other, for net.bridge.bridge-nf-call-iptables is 1 (IPv4); " +
			"port 8080/tcp of container web at 192.0.2.1 on eth0 cannot be reached from outside",
		Cause: "the policy of chain c of table inet t (drop)", Hint: nft,
	}
	if len(found) != 1 || found[0] != want {
		t.Errorf("found %d\n%+v\nwant\n%+v", len(found), found, want)
	}
}

// TestRelayedPorts: a port that a socket of isled's passes on comes to the host
// itself: who stops it there is named, whether packets are forwarded or not.
func TestRelayedPorts(t *testing.T) {
	for _, tt := range []struct{ what, setup, cause, hint string }{
		{"iptables", "iptables -P INPUT DROP", "the policy of chain INPUT of table ip filter (drop)", "iptables -I INPUT -p tcp --dport 9804 -j ACCEPT"},
		{"iptables-legacy", "iptables-legacy -A INPUT -p tcp -j DROP", "rule 1 in chain INPUT of table ip filter of iptables-legacy (meta l4proto tcp drop)", "iptables-legacy -I INPUT -p tcp --dport 9804 -j ACCEPT"},
		{"nft", "nft add table inet mine && nft add chain inet mine in '{ type filter hook input priority 0; policy drop; }'", "the policy of chain in of table inet mine (drop)", "nft insert rule inet mine in tcp dport 9804 accept"},
		{"before", "iptables-legacy -t raw -A PREROUTING -p tcp --dport 9804 -j DROP", "rule 1 in chain PREROUTING of table ip raw of iptables-legacy (tcp dport 9804 drop)", "iptables-legacy -t raw -D PREROUTING 1"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			ns := host(t)
			if out, err := ns.Try("bash", "-e", "-c", tt.setup); err != nil {
				t.Skip(&probe.NotSupportedError{Feature: tt.what + ": " + out, Err: err})
			}
			look := func() []doctor.Finding {
				rules, err := foreign.Read(ns.File, "isle")
				if err != nil {
					t.Fatal(err)
				}
				h, networks, containers := healthy(rules)
				h.Forward4 = false
				h.NeedForwarding = false
				containers[0].State = state()
				containers[0].Relayed = []exposure.Relay{{Publish: netspec.Publish{
					Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 9804, Count: 1, To: netip.MustParseAddr("fd00::2"), ToPort: 80,
				}, From: []netip.Prefix{pfx("10.88.0.0/16")}}}
				networks[0].State = state(netspec.Segment{Link: "isle-app", Subnet: pfx("fd00::/64")})
				return doctor.Examine(h, networks, containers)
			}
			found := look()
			if len(found) != 1 || found[0].Cause != tt.cause || found[0].Hint != tt.hint || found[0].Subject != "port 9804/tcp of container web" {
				t.Fatalf("found %+v", found)
			}
			ns.Run("bash", "-e", "-c", found[0].Hint)
			if found := look(); len(found) > 0 {
				t.Errorf("after doing as it said: %v", texts(found))
			}
		})
	}
}

// TestLegacyForward: rules of iptables-legacy are judged like all others, and what
// is advised is for them.
func TestLegacyForward(t *testing.T) {
	ns := host(t)
	if out, err := ns.Try("iptables-legacy", "-P", "FORWARD", "DROP"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "iptables-legacy: " + out, Err: err})
	}
	found := examine(t, ns)
	if len(found) != 1 || found[0].Cause != "the policy of chain FORWARD of table ip filter of iptables-legacy (drop)" ||
		found[0].Hint != "iptables-legacy -I FORWARD -i isle-app -j ACCEPT && iptables-legacy -I FORWARD -o isle-app -j ACCEPT" {
		t.Fatalf("found %+v", found)
	}
	ns.Run("bash", "-e", "-c", found[0].Hint)
	if found := examine(t, ns); len(found) > 0 {
		t.Errorf("after doing as it said: %v", texts(found))
	}
}
