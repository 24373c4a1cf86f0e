package dhcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

func testConfig() Config {
	c, err := Config{Interface: "eth0", MAC: ourMAC, Endpoint: "e", open: (&lan{}).open}.checked(true)
	if err != nil {
		panic(err)
	}
	return c
}

// ack is an ACK for 192.0.2.7/24 with more options.
func ack(opts ...v4.Option) *v4.DHCPv4 {
	m := &v4.DHCPv4{
		OpCode: v4.OpcodeBootReply, HWType: iana.HWTypeEthernet, ClientHWAddr: hardware(ourMAC),
		YourIPAddr: net.IPv4(192, 0, 2, 7).To4(), Options: v4.Options{},
	}
	for _, o := range append([]v4.Option{
		v4.OptMessageType(v4.MessageTypeAck), optServerID(serverIP), v4.OptSubnetMask(net.CIDRMask(24, 32)),
		v4.OptIPAddressLeaseTime(time.Hour), v4.OptRouter(serverIP.AsSlice()),
	}, opts...) {
		m.UpdateOption(o)
	}
	return m
}

func raw(code uint8, b ...byte) v4.Option { return v4.OptGeneric(v4.GenericOptionCode(code), b) }

// routesOf writes routes as people do: "10.0.0.0/8 by 192.0.2.1".
func routesOf(l Lease) string {
	var s []string
	for _, r := range l.Routes {
		if !r.Via.IsValid() {
			s = append(s, r.Dest.String())
			continue
		}
		s = append(s, fmt.Sprintf("%s by %s", r.Dest, r.Via))
	}
	return strings.Join(s, ", ")
}

// TestRefusedAnswers: answers that would do harm are not taken at all.
func TestRefusedAnswers(t *testing.T) {
	t.Parallel()
	give := func(a string) func(*v4.DHCPv4) { return func(m *v4.DHCPv4) { m.YourIPAddr = net.ParseIP(a).To4() } }
	with := func(o v4.Option) func(*v4.DHCPv4) { return func(m *v4.DHCPv4) { m.UpdateOption(o) } }
	without := func(c v4.OptionCode) func(*v4.DHCPv4) { return func(m *v4.DHCPv4) { m.DeleteOption(c) } }
	for want, change := range map[string]func(*v4.DHCPv4){
		"address 127.0.0.1, which no host can have":          give("127.0.0.1"),
		"address 0.0.0.0, which no host can have":            give("0.0.0.0"),
		"address 224.0.0.1, which no host can have":          give("224.0.0.1"),
		"address 255.255.255.255, which no host can have":    give("255.255.255.255"),
		"address 169.254.1.1, which no host can have":        give("169.254.1.1"),
		"address 192.0.2.0/24, which is not one of a host":   give("192.0.2.0"),
		"address 192.0.2.255/24, which is not one of a host": give("192.0.2.255"),
		"subnet mask 0.0.0.0":                                with(raw(1, 0, 0, 0, 0)),
		"subnet mask 255.0.255.0":                            with(raw(1, 255, 0, 255, 0)),
		"subnet mask of 5 bytes":                             with(raw(1, 255, 255, 255, 255, 128)),
		"no server identifier":                               without(v4.OptionServerIdentifier),
		"server identifier 255.255.255.255":                  with(optServerID(all.addr)),
		"no lease time":                                      without(v4.OptionIPAddressLeaseTime),
		"lease of 0s, less than 10s":                         with(v4.OptIPAddressLeaseTime(0)),
		"lease of 9s, less than 10s":                         with(v4.OptIPAddressLeaseTime(9 * time.Second)),
	} {
		m := ack()
		change(m)
		if l, err := testConfig().parse4(m, time.Now()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v", want, l, err)
		}
	}
}

// TestAnswers: what a lease is made of, and what of an answer is left out.
func TestAnswers(t *testing.T) {
	t.Parallel()
	route := func(dest string, via string) *v4.Route {
		_, n, _ := net.ParseCIDR(dest)
		return &v4.Route{Dest: n, Router: net.ParseIP(via)}
	}
	many := make([]*v4.Route, 100_000/8)
	for i := range many {
		many[i] = route(fmt.Sprintf("10.%d.%d.0/24", i>>8&255, i&255), "192.0.2.1")
	}
	for name, c := range map[string]struct {
		opts    []v4.Option
		field   func(Lease) any
		want    any
		ignored string
	}{
		"router":             {nil, func(l Lease) any { return routesOf(l) }, "0.0.0.0/0 by 192.0.2.1", ""},
		"router outside":     {[]v4.Option{v4.OptRouter(net.IPv4(198, 51, 100, 1))}, func(l Lease) any { return routesOf(l) }, "", "router 198.51.100.1 is not in 192.0.2.0/24"},
		"router is itself":   {[]v4.Option{v4.OptRouter(net.IPv4(192, 0, 2, 7))}, func(l Lease) any { return routesOf(l) }, "", "router 192.0.2.7 is not in 192.0.2.0/24"},
		"router is nonsense": {[]v4.Option{v4.OptRouter(net.IPv4(127, 0, 0, 1))}, func(l Lease) any { return routesOf(l) }, "", "Router 127.0.0.1"},
		"mask of one host": {[]v4.Option{v4.OptSubnetMask(net.CIDRMask(32, 32)), v4.OptRouter(net.IPv4(198, 51, 100, 1))},
			func(l Lease) any { return routesOf(l) }, "198.51.100.1/32, 0.0.0.0/0 by 198.51.100.1", ""},
		"121 wins": {[]v4.Option{v4.OptClasslessStaticRoute(route("10.0.0.0/8", "192.0.2.2"), route("0.0.0.0/0", "192.0.2.3"))},
			func(l Lease) any { return routesOf(l) }, "10.0.0.0/8 by 192.0.2.2, 0.0.0.0/0 by 192.0.2.3", ""},
		"121 by a gateway on the link": {[]v4.Option{v4.OptClasslessStaticRoute(route("198.51.100.1/32", "0.0.0.0"), route("0.0.0.0/0", "198.51.100.1"))},
			func(l Lease) any { return routesOf(l) }, "198.51.100.1/32, 0.0.0.0/0 by 198.51.100.1", ""},
		"121 to a cloud": {[]v4.Option{v4.OptClasslessStaticRoute(route("169.254.169.254/32", "192.0.2.2"))},
			func(l Lease) any { return routesOf(l) }, "169.254.169.254/32 by 192.0.2.2", ""},
		"121 by nowhere": {[]v4.Option{v4.OptClasslessStaticRoute(route("10.0.0.0/8", "203.0.113.1"))},
			func(l Lease) any { return routesOf(l) }, "", "route to 10.0.0.0/8 by 203.0.113.1, which is not on the link"},
		"121 to loopback": {[]v4.Option{v4.OptClasslessStaticRoute(route("127.0.0.0/8", "192.0.2.2"))},
			func(l Lease) any { return routesOf(l) }, "", "route to 127.0.0.0/8"},
		"121 with /33":  {[]v4.Option{raw(121, 33, 10, 0, 0, 0, 0, 192, 0, 2, 2)}, func(l Lease) any { return routesOf(l) }, "0.0.0.0/0 by 192.0.2.1", "classless routes: malformed"},
		"121 cut short": {[]v4.Option{raw(121, 8, 10, 192)}, func(l Lease) any { return routesOf(l) }, "0.0.0.0/0 by 192.0.2.1", "classless routes: malformed"},
		"121 endless":   {[]v4.Option{v4.OptClasslessStaticRoute(many...)}, func(l Lease) any { return len(l.Routes) }, mostRoute, "more than 64 routes"},
		"MTU":           {[]v4.Option{raw(26, 0x23, 0x28)}, func(l Lease) any { return l.MTU }, 9000, ""},
		"MTU 0":         {[]v4.Option{raw(26, 0, 0)}, func(l Lease) any { return l.MTU }, 0, "MTU 0000"},
		"MTU 65535":     {[]v4.Option{raw(26, 255, 255)}, func(l Lease) any { return l.MTU }, 0, "MTU ffff"},
		"DNS": {[]v4.Option{v4.OptDNS(net.IPv4(192, 0, 2, 53), net.IPv4(127, 0, 0, 1), net.IPv4(192, 0, 2, 53))},
			func(l Lease) any { return fmt.Sprint(l.DNS) }, "[192.0.2.53]", "Domain Name Server 127.0.0.1"},
		"NTP":             {[]v4.Option{v4.OptNTPServers(net.IPv4(192, 0, 2, 123))}, func(l Lease) any { return fmt.Sprint(l.NTP) }, "[192.0.2.123]", ""},
		"domain":          {[]v4.Option{v4.OptDomainName("corp.example\x00")}, func(l Lease) any { return l.Domain }, "corp.example", ""},
		"domain of a foe": {[]v4.Option{v4.OptDomainName("x\nnameserver 6.6.6.6")}, func(l Lease) any { return l.Domain }, "", `domain name "x\nnameserver 6.6.6.6"`},
		"search": {[]v4.Option{raw(119, 4, 'c', 'o', 'r', 'p', 0, 3, 'l', 'a', 'b', 0xc0, 0)},
			func(l Lease) any { return l.Search }, []string{"corp", "lab.corp"}, ""},
		"search in a circle": {[]v4.Option{raw(119, 3, 'l', 'a', 'b', 0xc0, 4)}, func(l Lease) any { return len(l.Search) }, 0,
			"domain search list: rfc1035label: cannot handle nested pointers"},
		"times": {[]v4.Option{v4.OptRenewTimeValue(10 * time.Minute), v4.OptRebindingTimeValue(20 * time.Minute)},
			func(l Lease) any { return fmt.Sprint(l.Renew.Sub(l.Obtained), l.Rebind.Sub(l.Obtained)) }, "10m0s 20m0s", ""},
		"times upside down": {[]v4.Option{v4.OptRenewTimeValue(50 * time.Minute), v4.OptRebindingTimeValue(20 * time.Minute)},
			func(l Lease) any { return fmt.Sprint(l.Renew.Sub(l.Obtained), l.Rebind.Sub(l.Obtained)) }, "20m0s 20m0s", ""},
		"times beyond the end": {[]v4.Option{v4.OptRenewTimeValue(2 * time.Hour), v4.OptRebindingTimeValue(3 * time.Hour)},
			func(l Lease) any { return fmt.Sprint(l.Renew.Sub(l.Obtained), l.Rebind.Sub(l.Obtained)) }, "30m0s 52m30s", ""},
		"times of a flood": {[]v4.Option{v4.OptRenewTimeValue(0), v4.OptRebindingTimeValue(time.Second)},
			func(l Lease) any { return fmt.Sprint(l.Renew.Sub(l.Obtained), l.Rebind.Sub(l.Obtained)) }, "30m0s 52m30s", ""},
	} {
		l, err := testConfig().parse4(ack(c.opts...), time.Now())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.field(l); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		if (c.ignored == "") != (len(l.Ignored) == 0) || c.ignored != "" && !slices.Contains(l.Ignored, c.ignored) {
			t.Errorf("%s: ignored %q, want %q", name, l.Ignored, c.ignored)
		}
	}
}

// TestClassOfAddress: without a mask it is that of the class.
func TestClassOfAddress(t *testing.T) {
	t.Parallel()
	for a, want := range map[string]string{"10.0.0.7": "10.0.0.7/8", "172.16.0.7": "172.16.0.7/16", "192.168.0.7": "192.168.0.7/24"} {
		m := ack()
		m.DeleteOption(v4.OptionSubnetMask)
		m.YourIPAddr = net.ParseIP(a).To4()
		if l, err := testConfig().parse4(m, time.Now()); err != nil || l.Address().String() != want {
			t.Errorf("%s: %v, %v", a, l, err)
		}
	}
}

// TestOverload: options may stand where the names of a server and a file do.
func TestOverload(t *testing.T) {
	t.Parallel()
	m := ack(raw(52, 3))
	b := m.ToBytes()
	copy(b[44:], []byte{6, 4, 192, 0, 2, 53, 255})
	copy(b[108:], []byte{15, 4, 'c', 'o', 'r', 'p', 255})
	got, _, ok := testConfig().read4(dialogue{id: m.TransactionID}, frame{data: serverFrame(b, serverIP)})
	if !ok {
		t.Fatal("not read")
	}
	if l, err := testConfig().parse4(got, time.Now()); err != nil || l.Domain != "corp" || fmt.Sprint(l.DNS) != "[192.0.2.53]" {
		t.Errorf("%q, %v, %v", l.Domain, l.DNS, err)
	}
	copy(b[44:], bytes.Repeat([]byte{6, 255}, 32))
	if _, _, ok := testConfig().read4(dialogue{id: m.TransactionID}, frame{data: serverFrame(b, serverIP)}); ok {
		t.Error("options that run over their field were taken")
	}
}

// TestMangledFrames: frames that are not answers are dropped, and the client
// goes on; after them the good one counts.
func TestMangledFrames(t *testing.T) {
	at := func(i int, v ...byte) func([]byte) { return func(b []byte) { copy(b[i:], v) } }
	for name, change := range map[string]func([]byte){
		"another's xid":     at(42+4, 9, 9, 9, 9),
		"another's chaddr":  at(42+28, 2, 9, 9, 9, 9, 9),
		"a request":         at(42, 1),
		"no cookie":         at(42+236, 0),
		"a bad checksum":    at(40, 1, 2),
		"a fragment":        func(b []byte) { b[20] = 0x20; refreshIP(b) },
		"IP of 4 bytes":     func(b []byte) { b[14] = 0x41; refreshIP(b) },
		"longer than it is": func(b []byte) { b[16] = 0xff; refreshIP(b) },
		"UDP of 4 bytes":    at(38, 0, 4),
		"UDP too long":      at(38, 0xff, 0xff),
		"no end of options": func(b []byte) { clearEnd(b) },
		"a wrong header":    at(24, 1, 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.mangle = func(f []byte) [][]byte {
					bad := bytes.Clone(f)
					change(bad)
					return [][]byte{bad[:20], bad, f}
				}
				_, _, cfg := newLAN(s.answer)
				cfg.Limit = 3 * time.Second
				_, l := acquired(t, cfg)
				expect(t, "address", l.Address().String(), "192.0.2.7/24")
				s.with(func(s *server) {
					s.mangle = func(f []byte) [][]byte { change(f); return [][]byte{f} }
				})
				if c, _, err := Acquire(t.Context(), cfg); err == nil {
					c.Close()
					t.Error("taken alone, too")
				}
			})
		})
	}
}

func refreshIP(b []byte) {
	copy(b[24:], []byte{0, 0})
	be.PutUint16(b[24:], ^sum(0, b[14:34]))
}

// clearEnd makes padding of the end of the options.
func clearEnd(b []byte) {
	if i := bytes.LastIndexByte(b, 255); i > 0 {
		b[i] = 0
	}
	copy(b[40:], []byte{0, 0}) // no checksum
}

// TestStorm: a flood of offers costs the client nothing but the first.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.mangle = func(f []byte) [][]byte { return slices.Repeat([][]byte{f}, 10_000) }
		_, _, cfg := newLAN(s.answer)
		c, _ := acquired(t, cfg)
		if n := c.p.(*dhcp4).t.n["OFFER"]; n > waiting {
			t.Errorf("%d offers were read", n)
		}
	})
}

// TestOptionsSent: who asks, and what for.
func TestOptionsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, _, cfg := newLAN(s.answer)
		cfg.UserClass, cfg.Vendor = "lab", "isle test"
		acquired(t, cfg)
		m := s.last
		expect(t, "hostname", m.HostName(), "web")
		expect(t, "vendor class", m.ClassIdentifier(), "isle test")
		expect(t, "user class", m.UserClass(), []string{"lab"})
		expect(t, "client id", m.Options.Get(v4.OptionClientIdentifier), append([]byte{1}, ourMAC[:]...))
		expect(t, "broadcast flag", m.IsBroadcast(), false)
		if size, err := m.MaxMessageSize(); err != nil || size != maxMessage {
			t.Errorf("maximum size: %d, %v", size, err)
		}
		for _, o := range []v4.OptionCode{v4.OptionClasslessStaticRoute, v4.OptionRouter, v4.OptionDNSDomainSearchList, v4.OptionInterfaceMTU, v4.OptionNTPServers} {
			if !m.IsOptionRequested(o) {
				t.Errorf("%s is not asked for", o)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, _, cfg := newLAN(s.answer)
		cfg.SharedMAC, cfg.FQDN = true, "web.corp.example"
		acquired(t, cfg)
		m := s.last
		expect(t, "broadcast flag", m.IsBroadcast(), true)
		expect(t, "FQDN", string(m.Options.Get(optFQDN)), "\x05\x00\x00\x03web\x04corp\x07example\x00")
		expect(t, "hostname beside FQDN", m.HostName(), "")
		id := m.Options.Get(v4.OptionClientIdentifier)
		if len(id) != 15 || id[0] != 255 {
			t.Errorf("client id %x", id)
		}
		cfg.Endpoint = "another"
		acquired(t, cfg)
		if bytes.Equal(id, s.last.Options.Get(v4.OptionClientIdentifier)) {
			t.Error("two endpoints on one MAC have one client id")
		}
	})
}

// TestConfig: what cannot work is said before anything is sent.
func TestConfig(t *testing.T) {
	t.Parallel()
	good := Config{Interface: "eth0", MAC: ourMAC, open: (&lan{}).open}
	for want, change := range map[string]func(*Config){
		"no interface or namespace":               func(c *Config) { c.Interface = "" },
		"is no MAC of an interface":               func(c *Config) { c.MAC[0] = 1 },
		"no endpoint to tell clients apart by":    func(c *Config) { c.SharedMAC = true },
		"host name of 300 bytes: 128 are the mos": func(c *Config) { c.Hostname = strings.Repeat("x", 300) },
		"an id that is only a type":               func(c *Config) { c.ClientID = []byte{0} },
		`"a b" is no domain name`:                 func(c *Config) { c.FQDN = "a b" },
	} {
		cfg := good
		change(&cfg)
		if _, _, err := Acquire(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// FuzzAnswer4: whatever comes, what is made of it can be used.
func FuzzAnswer4(f *testing.F) {
	f.Add(serverFrame(ack(v4.OptDNS(net.IPv4(192, 0, 2, 53)), raw(26, 5, 220), raw(119, 4, 'c', 'o', 'r', 'p', 0)).ToBytes(), serverIP))
	f.Add(serverFrame(ack(raw(52, 3), raw(121, 0, 192, 0, 2, 1, 8, 10, 192, 0, 2, 2)).ToBytes(), serverIP))
	f.Add([]byte{})
	cfg := testConfig()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, ok := cfg.read4(dialogue{}, frame{data: b, partial: true})
		if !ok {
			return
		}
		if l, err := cfg.parse4(m, time.Unix(1e9, 0).UTC()); err == nil {
			sane(t, l)
		}
	})
}

// sane is what callers count on.
func sane(t *testing.T, l Lease) {
	t.Helper()
	for _, a := range l.Addresses {
		if a.Prefix.Bits() < 1 || a.Prefix.Addr().IsLoopback() || a.Prefix.Addr().IsMulticast() || a.Prefix.Addr().IsUnspecified() {
			t.Errorf("address %s", a.Prefix)
		}
		if !a.Valid.IsZero() && (a.Preferred.IsZero() || a.Preferred.After(a.Valid)) {
			t.Errorf("address preferred until %s, valid until %s", a.Preferred, a.Valid)
		}
	}
	for _, r := range l.Routes {
		if r.Dest != r.Dest.Masked() || r.Dest.Bits() < 0 {
			t.Errorf("route %v", r)
		}
	}
	if !l.Expire.IsZero() && (l.Renew.Before(l.Obtained.Add(firstT1)) || l.Renew.After(l.Rebind) || l.Rebind.After(l.Expire)) {
		t.Errorf("T1 %s, T2 %s, end %s", l.Renew, l.Rebind, l.Expire)
	}
	if len(l.Routes) > mostRoute || len(l.DNS) > mostAddrs || len(l.Search) > mostNames || l.MTU != 0 && l.MTU < leastMTU || l.MTU > mostMTU {
		t.Errorf("too much: %v", l)
	}
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var again Lease
	if err := json.Unmarshal(b, &again); err != nil || !again.Same(l) || netip.Prefix(again.Address()) != l.Address() {
		t.Errorf("after JSON: %v, %v", again, err)
	}
}

// TestForOthers: what the kernel's filter lets pass is looked at again.
func TestForOthers(t *testing.T) {
	t.Parallel()
	cfg, m := testConfig(), ack()
	read := func(b []byte) bool {
		_, _, ok := cfg.read4(dialogue{id: m.TransactionID}, frame{data: b})
		return ok
	}
	if !read(serverFrame(m.ToBytes(), serverIP)) {
		t.Fatal("a good one is not read")
	}
	other := serverFrame(m.ToBytes(), serverIP)
	be.PutUint16(other[34:], server4+1)
	copy(other[40:], []byte{0, 0})
	if read(other) {
		t.Error("taken from another port")
	}
	m.ClientHWAddr = hardware(otherMAC)
	if read(serverFrame(m.ToBytes(), serverIP)) {
		t.Error("taken though it is for another")
	}
}
