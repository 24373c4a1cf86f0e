package foreign_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"isle/internal/kernel/foreign"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/ruleset"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// router forwards between a client at 192.0.2.2 and a server at 198.51.100.2,
// which answers on ports 80 and 8080.
type router struct {
	kerneltest.NS
	client kerneltest.NS
}

func newRouter(t *testing.T) router {
	t.Helper()
	r := router{kerneltest.NewNS(t), kerneltest.NewNS(t)}
	server := kerneltest.NewNS(t)
	for i, side := range []kerneltest.NS{r.client, server} {
		dev, subnet := []string{"in0", "out0"}[i], []string{"192.0.2", "198.51.100"}[i]
		r.IP(fmt.Sprintf(`link add %[1]s type veth peer name eth0
			link set eth0 netns /proc/%[2]d/fd/%[3]d
			addr add %[4]s.1/24 dev %[1]s
			link set %[1]s up`, dev, os.Getpid(), side.File.Fd(), subnet))
		side.IP(fmt.Sprintf("addr add %[1]s.2/24 dev eth0\nlink set eth0 up\nroute add default via %[1]s.1", subnet))
	}
	r.Run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	for _, port := range []string{"80", "8080"} {
		var l net.Listener
		server.Do(func() (err error) { l, err = net.Listen("tcp", ":"+port); return err })
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	return r
}

// passes is what the kernel does.
func (r router) passes(port uint16) bool {
	return netns.Do(r.client.File, func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("198.51.100.2:%d", port), 400*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}

func (r router) load(t *testing.T, rules string) {
	t.Helper()
	r.Run("nft", "flush", "ruleset")
	if !strings.HasPrefix(rules, "*") && !strings.HasPrefix(rules, "#ipt") {
		r.in(t, "nft", rules, "-f", "-")
		return
	}
	r.in(t, "iptables-restore", rules)
}

func (r router) in(t *testing.T, name, stdin string, args ...string) {
	t.Helper()
	var out []byte
	r.Do(func() (err error) {
		c := exec.Command(name, args...)
		c.Stdin = strings.NewReader(stdin)
		if out, err = c.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
}

func packet(port uint16) ruleset.Packet {
	return ruleset.Packet{
		In: "in0", Out: "out0", Src: netip.MustParseAddr("192.0.2.2"), Dst: netip.MustParseAddr("198.51.100.2"),
		Proto: "tcp", SrcPort: 40000, DstPort: port,
	}
}

const chain = "table inet t {\nchain c { type filter hook forward priority 0; policy %s; %s\n}\n%s\n}\n"

func nft(policy, rules string, more ...string) string {
	return fmt.Sprintf(chain, policy, rules, strings.Join(more, "\n"))
}

func table(name, rules string) string {
	return fmt.Sprintf("table %s {\nchain c { %s\n}\n}\n", name, rules)
}

// TestAsTheKernel: what is said of a packet is what the kernel does with it.
func TestAsTheKernel(t *testing.T) {
	r := newRouter(t)
	for _, tt := range []struct{ what, rules, by string }{
		{"nothing", "", ""},
		{"policy", nft("drop", ""), "the policy of chain c of table inet t"},
		{"policy, one port let through", nft("drop", "ct state established accept; tcp dport 80 accept;"), "the policy"},
		{"a port", nft("accept", "tcp dport 8080 drop;"), "tcp dport 8080 drop"},
		{"ports from a set", nft("accept", "tcp dport { 22, 8000-8100 } reject;"), "tcp dport { 22, 8000-8100 } reject"},
		{"ports but for a set", nft("accept", "ct state established accept; tcp dport != { 22, 80 } drop;"), "tcp dport != { 22, 80 } drop"},
		{"a named set", nft("accept", "ip saddr @bad drop;", "set bad { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.0/28 }\n}"), "ip saddr @bad drop"},
		{"a set of two fields", nft("accept", "ip saddr . tcp dport { 192.0.2.0/24 . 8000-9000 } drop;"), "ip saddr . dport { "},
		{"interfaces", nft("accept", `iifname "in0" oifname "out0" tcp dport 8080 drop;`), `iifname "in0" oifname "out0" tcp dport 8080 drop`},
		{"interfaces by number", nft("accept", `iif "in0" tcp dport 8080 drop;`), "tcp dport 8080 drop"},
		{"beginning of a name", nft("accept", `iifname "in*" tcp dport 8080 drop;`), `iifname "in*" tcp dport 8080 drop`},
		{"another interface", nft("accept", `iifname "eth9" drop;`), ""},
		{"a network", nft("accept", "ip saddr 192.0.2.0/25 tcp dport 8080 drop;"), "ip saddr 192.0.2.0/25 tcp dport 8080 drop"},
		{"another network", nft("accept", "ip saddr 192.0.2.128/25 drop;"), ""},
		{"state", nft("accept", "ct state new tcp dport 8080 drop;"), "ct state new tcp dport 8080 drop"},
		{"another state", nft("accept", "ct state invalid drop;"), ""},
		{"jump and return", nft("drop", "ct state established accept; jump d;", "chain d { tcp dport 8080 return; accept; }"), "the policy"},
		{"goto", nft("accept", "ct state established accept; goto d;", "chain d { tcp dport 80 accept; drop; }"), "drop"},
		{"a map of verdicts", nft("accept", "tcp dport vmap { 80 : accept, 8080 : drop };"), "tcp dport vmap"},
		{"a range", nft("accept", "tcp dport 8000-9000 drop;"), "tcp dport >= 8000 dport <= 9000 drop"},
		{"more than", nft("accept", "tcp sport > 1024 tcp dport > 80 drop;"), "dport > 80 drop"},
		{"not forwarded to", nft("accept", "ct status dnat drop;"), ""},
		{"kind of address", nft("accept", "fib daddr type local drop;"), ""},
		{"two chains", table("ip a", "type filter hook forward priority -10; accept;") + table("ip b", "type filter hook forward priority 10; tcp dport 8080 drop;"), "table ip b"},
		{"before the routing", table("ip a", "type filter hook prerouting priority -300; tcp dport 8080 drop;"), "table ip a"},
		{"asleep", "table ip a {\nflags dormant;\nchain c { type filter hook forward priority 0; policy drop;\n}\n}\n", ""},
		{"of another family", table("ip6 a", "type filter hook forward priority 0; policy drop;"), ""},
		{"aside", nft("accept", `counter log prefix "x" tcp dport 8080 counter drop;`), "drop"},
		{"over a limit", nft("accept", "tcp dport 8080 limit rate over 1000/second drop;"), ""},
		{"iptables: policy", "*filter\n:FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -p tcp --dport 80 -j ACCEPT\nCOMMIT\n", "the policy of chain FORWARD of table ip filter"},
		{"iptables: reject", "*filter\n:FORWARD ACCEPT\n-A FORWARD -i in0 -p tcp -m tcp --dport 8080 -m comment --comment hello -j REJECT\nCOMMIT\n", `iifname "in0" tcp dport 8080 /* hello */ reject`},
		{"iptables: many ports", "*filter\n:FORWARD ACCEPT\n-A FORWARD -p tcp -m multiport --dports 22,8000:8100 -j DROP\nCOMMIT\n", "dport 22,8000-8100 drop"},
		{"iptables: new ones", "*filter\n:FORWARD ACCEPT\n:X -\n-A FORWARD -m conntrack --ctstate NEW -j X\n-A X -p tcp --dport 8080 -j DROP\nCOMMIT\n", "chain X of table ip filter"},
		{"iptables: kinds of addresses", "*filter\n:FORWARD ACCEPT\n-A FORWARD -p tcp --dport 8080 -m addrtype ! --dst-type LOCAL -j DROP\nCOMMIT\n", "fib daddr type != local drop"},
		{"iptables: another mark", "*filter\n:FORWARD ACCEPT\n-A FORWARD -m mark --mark 7 -j DROP\nCOMMIT\n", ""},
		{"iptables: not a network", "*filter\n:FORWARD ACCEPT\n-A FORWARD ! -s 10.0.0.0/8 -p tcp --dport 8080 -j DROP\nCOMMIT\n", "ip saddr != 10.0.0.0/8"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r.load(t, tt.rules)
			rules, err := foreign.Read(r.File, "isle")
			if err != nil {
				t.Fatal(err)
			}
			by := ""
			for _, port := range []uint16{80, 8080} {
				p := packet(port)
				got := rules.Pass(ruleset.Prerouting, ruleset.Packet{In: p.In, Src: p.Src, Dst: p.Dst, Proto: p.Proto, DstPort: port})
				if !got.Drop {
					got = rules.Pass(ruleset.Forward, p)
				}
				if got.Unsure {
					t.Errorf("port %d: unsure about %v", port, got.By)
				}
				if want := r.passes(port); got.Drop == want {
					t.Errorf("port %d passes: %t, and %v was said", port, want, got)
				}
				if got.Drop {
					by = got.By.String()
				}
			}
			if (by == "") != (tt.by == "") || !strings.Contains(by, tt.by) {
				t.Errorf("by %q, want %q", by, tt.by)
			}
		})
	}
}

// TestUnsure: what is not understood is said to be so, where it matters.
func TestUnsure(t *testing.T) {
	r := newRouter(t)
	for rules, unsure := range map[string]bool{
		nft("accept", "meta skuid 0 drop;"):                      true,
		nft("drop", "meta skuid 0 accept;"):                      true,
		nft("accept", "meta skuid 0 accept;"):                    false,
		nft("accept", "meta skuid 0 tcp dport 9 drop;"):          false,
		nft("accept", "meta cpu 0 jump d;", "chain d { }"):       false,
		nft("accept", "meta cpu 0 jump d;", "chain d { drop; }"): true,
	} {
		r.load(t, rules)
		got, err := foreign.Read(r.File, "isle")
		if err != nil {
			t.Fatal(err)
		}
		if out := got.Pass(ruleset.Forward, packet(80)); out.Unsure != unsure || out.Drop {
			t.Errorf("%s: %+v, want unsure %t", rules, out, unsure)
		}
	}
}

// TestOursIsLeftOut: our own table is no foreign one.
func TestOursIsLeftOut(t *testing.T) {
	r := newRouter(t)
	r.load(t, table("inet isle", "type filter hook forward priority 0; policy drop;")+table("ip isle", "type filter hook forward priority 0;"))
	got, err := foreign.Read(r.File, "isle")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Chains) != 1 || got.Chains[0].Family != "ip" {
		t.Errorf("%+v", got.Chains)
	}
}

// TestLegacy: what is said of a packet is what the kernel does with it by the rules
// of iptables-legacy.
func TestLegacy(t *testing.T) {
	r := newRouter(t)
	if out, err := r.Try("iptables-legacy", "-P", "FORWARD", "DROP"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "iptables-legacy: " + out, Err: err})
	}
	if _, err := r.Try("ip6tables-legacy", "-P", "FORWARD", "DROP"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "ip6tables-legacy", Err: err})
	}
	filter := func(policy string, rules ...string) string {
		return "*filter\n:FORWARD " + policy + "\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
	}
	const of = " of table ip filter of iptables-legacy"
	for _, tt := range []struct{ what, rules, by string }{
		{"nothing", filter("ACCEPT"), ""},
		{"policy", filter("DROP"), "the policy of chain FORWARD" + of + " (drop)"},
		{"a port of two", filter("DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -p tcp --dport 80 -j ACCEPT"), "the policy"},
		{"interfaces", filter("ACCEPT", "-A FORWARD -i in0 -o out0 -p tcp --dport 8080 -j DROP"), `rule 1 in chain FORWARD` + of + ` (iifname "in0" oifname "out0" tcp dport 8080 drop)`},
		{"the beginning of a name", filter("ACCEPT", "-A FORWARD -i in+ -p tcp --dport 8080 -j DROP"), `iifname "in*"`},
		{"another interface", filter("ACCEPT", "-A FORWARD -i eth9 -j DROP"), ""},
		{"not an interface", filter("ACCEPT", "-A FORWARD ! -i eth9 -p tcp --dport 8080 -j DROP"), `iifname != "eth9"`},
		{"a network", filter("ACCEPT", "-A FORWARD -s 192.0.2.0/25 -d 198.51.100.2 -p tcp --dport 8080 -j DROP"), "ip saddr 192.0.2.0/25 ip daddr 198.51.100.2 tcp dport 8080 drop"},
		{"another network", filter("ACCEPT", "-A FORWARD -s 192.0.2.128/25 -j DROP"), ""},
		{"not a network", filter("ACCEPT", "-A FORWARD ! -s 10.0.0.0/8 -p tcp --dport 8080 -j REJECT"), "ip saddr != 10.0.0.0/8"},
		{"another protocol", filter("ACCEPT", "-A FORWARD -p udp -j DROP", "-A FORWARD -p icmp -j DROP"), ""},
		{"not a protocol", filter("ACCEPT", "-A FORWARD ! -p udp -s 192.0.2.2 -j DROP"), "ip saddr 192.0.2.2 meta l4proto != udp drop"},
		{"many ports", filter("ACCEPT", "-A FORWARD -p tcp -m multiport --dports 22,8000:8100 -j DROP"), "dport 22,8000-8100 drop"},
		{"fragments", filter("ACCEPT", "-A FORWARD -f -j DROP"), ""},
		{"without a target", filter("ACCEPT", "-A FORWARD -p tcp --dport 8080", "-A FORWARD -j LOG"), ""},
		{"jump", filter("ACCEPT", ":X -", ":Y -", "-A FORWARD -j Y", "-A FORWARD -m conntrack --ctstate NEW -j X", "-A X -p tcp --dport 80 -j RETURN", "-A X -j DROP"), "rule 2 in chain X" + of},
		{"goto", filter("DROP", ":X -", "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT", "-A FORWARD -p tcp --dport 80 -g X", "-A FORWARD -p tcp --dport 8080 -j ACCEPT", "-A X -s 10.0.0.1 -j ACCEPT"), "the policy"},
		{"before the routing", "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp --dport 8080 -j DROP\nCOMMIT\n", "chain PREROUTING of table ip raw of iptables-legacy"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			r.in(t, "iptables-legacy-restore", "*raw\n:PREROUTING ACCEPT\nCOMMIT\n")
			r.in(t, "iptables-legacy-restore", filter("ACCEPT"))
			r.in(t, "iptables-legacy-restore", tt.rules)
			rules, err := foreign.Read(r.File, "isle")
			if err != nil {
				t.Fatal(err)
			}
			by := ""
			for _, port := range []uint16{80, 8080} {
				p := packet(port)
				got := rules.Pass(ruleset.Prerouting, p)
				if !got.Drop {
					got = rules.Pass(ruleset.Forward, p)
				}
				if want := r.passes(port); got.Drop == want || got.Unsure {
					t.Errorf("port %d passes: %t, and %v was said", port, want, got)
				}
				if got.Drop {
					by = got.By.String()
				}
			}
			if (by == "") != (tt.by == "") || !strings.Contains(by, tt.by) {
				t.Errorf("by %q, want %q", by, tt.by)
			}
		})
	}
}

// TestLegacyUnsure: what is not understood is said to be so, also of IPv6.
func TestLegacyUnsure(t *testing.T) {
	r := newRouter(t)
	p := ruleset.Packet{In: "in0", Out: "out0", Src: netip.MustParseAddr("2001:db8::2"), Dst: netip.MustParseAddr("2001:db8:1::2"), Proto: "tcp", SrcPort: 40000, DstPort: 80}
	for rules, want := range map[string]ruleset.Outcome{
		"-A FORWARD -m time --timestart 01:00 --timestop 01:01 -j DROP": {Unsure: true, By: ruleset.Place{Handle: 1, Text: "(match time) drop"}},
		"-A FORWARD -s 2001:db8::/64 -p tcp --dport 80 -j DROP":         {Drop: true, By: ruleset.Place{Handle: 1, Text: "ip6 saddr 2001:db8::/64 tcp dport 80 drop"}},
		"-A FORWARD ! -d 2001:db8:1::/64 -j DROP":                       {},
	} {
		if want.By.Handle != 0 {
			want.By.Family, want.By.Table, want.By.Chain, want.By.Legacy = "ip6", "filter", "FORWARD", true
		}
		if out, err := r.Try("ip6tables-legacy", "-F"); err != nil {
			t.Skip(&probe.NotSupportedError{Feature: "ip6tables-legacy: " + out, Err: err})
		}
		r.in(t, "ip6tables-legacy-restore", "*filter\n:FORWARD ACCEPT\n"+rules+"\nCOMMIT\n")
		got, err := foreign.Read(r.File, "isle")
		if err != nil {
			t.Fatal(err)
		}
		if out := got.Pass(ruleset.Forward, p); out.Drop != want.Drop || out.Unsure != want.Unsure || (out.Drop || out.Unsure) && out.By != want.By {
			t.Errorf("%s: %+v, want %+v", rules, out, want)
		}
	}
}
