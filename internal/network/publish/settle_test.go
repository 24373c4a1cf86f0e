package publish_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"pgregory.net/rapid"

	"isle/internal/network/publish"
)

// holder keeps which ports have a socket.
type holder struct {
	open    map[string]*socket
	checked []publish.Mapping
	refuse  func(netip.AddrPort) error
}

type socket struct {
	h    *holder
	name string
	way  publish.Way
}

func (h *holder) Hold(proto string, a netip.AddrPort) (publish.Held, error) {
	if h.refuse != nil {
		if err := h.refuse(a); err != nil {
			return nil, err
		}
	}
	if other := h.inTheWay(publish.Mapping{Proto: proto, HostIP: a.Addr(), HostPort: a.Port(), Count: 1}); other != "" {
		return nil, fmt.Errorf("%s has a socket already: %w", other, errdefs.ErrConflict)
	}
	name := proto + " " + a.String()
	if h.open == nil {
		h.open = map[string]*socket{}
	}
	h.open[name] = &socket{h: h, name: name}
	return h.open[name], nil
}

// inTheWay is a socket that is open where m would be.
func (h *holder) inTheWay(m publish.Mapping) string {
	for name := range h.open {
		proto, at, _ := strings.Cut(name, " ")
		b := netip.MustParseAddrPort(at)
		same := b.Addr().Is4() == m.HostIP.Is4() && (m.HostIP == b.Addr() || b.Addr().IsUnspecified() || m.Iface == "" && m.HostIP.IsUnspecified())
		if same && proto == m.Proto && m.HostPort <= b.Port() && b.Port()-m.HostPort < m.Count {
			return name
		}
	}
	return ""
}

func (h *holder) Check(m publish.Mapping) error {
	h.checked = append(h.checked, m)
	if other := h.inTheWay(m); other != "" {
		return fmt.Errorf("%s has a socket already: %w", other, errdefs.ErrConflict)
	}
	return nil
}

func (h *holder) Close()                {}
func (s *socket) Forward(w publish.Way) { s.way = w }
func (s *socket) Close() error {
	if s.h.open[s.name] != s {
		return errors.New("closed twice")
	}
	delete(s.h.open, s.name)
	return nil
}

func specs(t *testing.T, texts ...string) []publish.Request {
	t.Helper()
	all, err := publish.ParseSpecs(strings.Join(texts, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	reqs, err := publish.Parse(nil, all, publish.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	return reqs
}

func mustClaim(t *testing.T, tab *publish.Table, owner string, texts ...string) []publish.Mapping {
	t.Helper()
	got, err := tab.Claim(owner, specs(t, texts...), name)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestTakeOver: a port changes hands with the socket that holds it, and comes
// back with it when the change comes to nothing.
func TestTakeOver(t *testing.T) {
	h := &holder{}
	tab := &publish.Table{Holder: h}
	mustClaim(t, tab, "blue", "8000-8009:80-89")
	before := h.open["tcp 0.0.0.0:8004"]
	for _, undo := range []bool{true, false} {
		s, err := tab.Change("green", nil, specs(t, "8004-8005:90-91", "8080:80"), true, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(s.Got, s.Lost); got != "[{tcp 0.0.0.0  8004 2 90 } {tcp 0.0.0.0  8080 1 80 }] map[blue:[{tcp 0.0.0.0  8004 2 84 }]]" {
			t.Errorf("settled: %s", got)
		}
		if h.open["tcp 0.0.0.0:8004"] != before {
			t.Error("the socket was opened anew: for a moment anybody could have had the port")
		}
		if undo {
			s.Undo()
		} else {
			s.Commit()
		}
		owner := map[bool]string{true: "blue", false: "green"}[undo]
		_, err = tab.Claim("x", specs(t, "8004:1"), name)
		if err == nil || !strings.Contains(err.Error(), "container <"+owner+"> has") {
			t.Errorf("undo %t: %v", undo, err)
		}
		if (h.open["tcp 0.0.0.0:8080"] != nil) == undo {
			t.Errorf("undo %t: sockets %v", undo, h.open)
		}
	}
	tab.Release("blue", []publish.Mapping{{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 8000, Count: 10}})
	if len(h.open) != 3 {
		t.Errorf("of blue only its own goes: %v", h.open)
	}
}

// TestKeepSources: who takes a port over does not open it to others, on no
// address, unless he says so.
func TestKeepSources(t *testing.T) {
	tab := &publish.Table{}
	mustClaim(t, tab, "a", "80-81:80-81;from=10.0.0.0/8", "82:82", "if=eth0:90:90;from=10.0.0.1", "127.0.0.1:91:91;from=10.0.0.2")
	for in, want := range map[string]string{
		"80:8080":              "0.0.0.0:80+1 10.0.0.0/8, :::80+1 10.0.0.0/8",
		"0.0.0.0:79-83:1-5":    "0.0.0.0:79+1 , 0.0.0.0:80+2 10.0.0.0/8, 0.0.0.0:82+2 ",
		"80:80;from=0.0.0.0/0": "[0.0.0.0 ::]:80+1 0.0.0.0/0",
		"[::]:80:80":           ":::80+1 ",
		"if=eth0:90:91":        "0.0.0.0eth0:90+1 10.0.0.1/32, ::eth0:90+1 10.0.0.1/32",
		"0.0.0.0:91:91":        "0.0.0.0:91+1 ", // cannot be taken over: another address
		"83":                   "[0.0.0.0 ::]:0+1 ",
	} {
		all, err := publish.ParseSpecs(in)
		if err != nil {
			t.Fatal(err)
		}
		reqs, err := publish.Parse(nil, all, publish.Defaults{IPv6: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range tab.KeepSources("x", reqs) {
			at := fmt.Sprint(r.HostIPs)
			if len(r.HostIPs) == 1 {
				at = r.HostIPs[0].String()
			}
			got = append(got, fmt.Sprintf("%s%s:%d+%d %s", at, r.Iface, r.First, r.Count, r.From))
		}
		if is := strings.Join(got, ", "); is != want {
			t.Errorf("%s: %s, want %s", in, is, want)
		}
	}
}

// TestTakeOverAtOtherAddress: who has the port at a wider address keeps it.
func TestTakeOverAtOtherAddress(t *testing.T) {
	tab := &publish.Table{}
	mustClaim(t, tab, "web", "8080:80")
	_, err := tab.Change("x", nil, specs(t, "127.0.0.1:8080:80"), true, name)
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "container <web> has 0.0.0.0:8080/tcp") {
		t.Errorf("%v", err)
	}
}

// TestInterfaces: an interface collides with itself and with every address, not
// with a single one.
func TestInterfaces(t *testing.T) {
	for _, c := range []struct {
		have, want string
		free       bool
	}{
		{"if=eth0:80:80", "if=eth0:80:81", false},
		{"if=eth0:80:80", "if=eth1:80:80", true},
		{"if=eth0:80:80", "127.0.0.1:80:80", true},
		{"if=eth0:80:80", "192.0.2.1:80:80", true},
		{"192.0.2.1:80:80", "if=eth0:80:80", true},
		{"if=eth0:80:80", "80:80", false},
		{"80:80", "if=eth0:80:80", false},
		{"if=eth0:80:80", "[::]:80:80", true}, // no IPv6 here
	} {
		h := &holder{}
		tab := &publish.Table{Holder: h}
		mustClaim(t, tab, "a", c.have)
		_, err := tab.Claim("b", specs(t, c.want), name)
		if (err == nil) != c.free || err != nil && !errdefs.IsConflict(err) {
			t.Errorf("%s, then %s: %v; free: %t", c.have, c.want, err, c.free)
		}
		for s := range h.open {
			if strings.HasPrefix(c.have, "if=") && strings.HasPrefix(c.want, "if=") {
				t.Errorf("%s and %s: socket %s, though the interface may not be there", c.have, c.want, s)
			}
		}
	}
}

// TestOtherAddress: a port goes from one address to all and back, past the
// socket that it had; when that comes to nothing the port is held as before.
func TestOtherAddress(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		for _, undo := range []bool{true, false} {
			tab := sockets(t)
			one := mustClaim(t, tab, "a", "127.0.0.1::80/"+proto)
			port := fmt.Sprint(one[0].HostPort)
			for drop, text := one, "0.0.0.0"; text != ""; {
				s, err := tab.Change("a", drop, specs(t, text+":"+port+":80/"+proto), false, name)
				if err != nil {
					t.Fatalf("%s, to %s: %v", proto, text, err)
				}
				if undo {
					s.Undo()
					text = ""
					continue
				}
				s.Commit()
				drop, text = s.Got, map[string]string{"0.0.0.0": "127.0.0.1"}[text]
			}
			if !taken(t, proto, "127.0.0.1:"+port) || taken(t, proto, "127.0.0.2:"+port) {
				t.Errorf("%s, undone: %t: not held as it should be", proto, undo)
			}
		}
	}
}

// TestHoldAgain: what could not be held when it was restored is held as soon as it
// can be, and until then is told of.
func TestHoldAgain(t *testing.T) {
	taken := true
	h := &holder{refuse: func(a netip.AddrPort) error {
		if taken && a.Port() == 8001 {
			return errdefs.ErrConflict
		}
		return nil
	}}
	tab := &publish.Table{Holder: h}
	row := publish.Mapping{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 8000, Count: 3, ContainerPort: 80}
	if err := tab.Restore("web", []publish.Mapping{row, {Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 9000, Count: 1}}, none); !errdefs.IsConflict(err) || len(h.open) != 3 {
		t.Fatalf("%v, sockets %v", err, h.open)
	}
	for range 2 {
		if un := tab.Unheld(); len(un) != 1 || un[0].Owner != "web" || un[0].Mapping != row || !errdefs.IsConflict(un[0].Err) {
			t.Errorf("not held: %v", un)
		}
		if who := tab.HoldAgain(); fmt.Sprint(who) != "[web]" {
			t.Errorf("tried for %v", who)
		}
	}
	taken = false
	if who := tab.HoldAgain(); fmt.Sprint(who) != "[web]" || len(h.open) != 4 || len(tab.Unheld()) != 0 {
		t.Errorf("tried for %v, sockets %v, not held: %v", who, h.open, tab.Unheld())
	}
	if who := tab.HoldAgain(); who != nil {
		t.Errorf("all is held, and it was tried for %v", who)
	}
}

// TestRowOverSockets: a port becomes one of a long row, or of an interface: its
// own socket is not another program's.
func TestRowOverSockets(t *testing.T) {
	for _, c := range []struct{ have, want string }{
		{"0.0.0.0:20005:5", "20000-29999:20000-29999"},
		{"127.0.0.1:20005:5", "20000-29999:20000-29999"},
		{"20005-20006:5-6", "if=eth0:20005-20006:5-6"},
	} {
		h := &holder{}
		tab := &publish.Table{Holder: h}
		have := mustClaim(t, tab, "a", c.have)
		before := len(h.open)
		for _, undo := range []bool{true, false} {
			s, err := tab.Change("a", have, specs(t, c.want), false, name)
			if err != nil {
				t.Fatalf("%s, then %s: %v", c.have, c.want, err)
			}
			if undo {
				s.Undo()
			} else {
				s.Commit()
			}
			if now := len(h.open); undo && now != before || !undo && now != 0 {
				t.Errorf("%s, then %s (undone: %t): %v", c.have, c.want, undo, h.open)
			}
		}
		h.open = map[string]*socket{"tcp 0.0.0.0:20006": {h: h}}
		if _, err := tab.Change("a", mustClaim(t, &publish.Table{}, "a", c.want), specs(t, c.want), false, name); !errdefs.IsConflict(err) {
			t.Errorf("%s: another program has one: %v", c.want, err)
		}
	}
}

// taken reports whether a program can not have a port.
func taken(t *testing.T, proto, at string) bool {
	t.Helper()
	if proto == "udp" {
		c, err := net.ListenPacket("udp4", at)
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	l, err := net.Listen("tcp4", at)
	if err == nil {
		l.Close()
	}
	return err != nil
}

// TestLongRows: ten thousand ports cost one question and no socket.
func TestLongRows(t *testing.T) {
	h := &holder{}
	tab := &publish.Table{Holder: h}
	pm := network.PortMap{}
	for i := range 10000 {
		pm[port(uint16(20000+i), "udp")] = []network.PortBinding{{HostPort: fmt.Sprint(20000 + i)}}
	}
	got, err := claim(t, tab, "a", pm)
	if want := "[{udp 0.0.0.0  20000 10000 20000 } {udp ::  20000 10000 20000 }]"; err != nil || fmt.Sprint(got) != want {
		t.Fatalf("%v, %v; want %s", got, err, want)
	}
	if len(h.open) != 0 || !slices.Equal(h.checked, got) {
		t.Errorf("%d sockets, looked for %v", len(h.open), h.checked)
	}
	for port, free := range map[string]bool{"19999": true, "20000": false, "25000": false, "29999": false, "30000": true} {
		if _, err := claim(t, tab, port, bindings("1/udp", network.PortBinding{HostPort: port})); (err == nil) != free {
			t.Errorf("port %s: %v", port, err)
		}
	}
}

// TestRefusedInTheMiddle: whichever socket cannot be had, nothing is left.
func TestRefusedInTheMiddle(t *testing.T) {
	for n := 1; n <= 6; n++ {
		h := &holder{}
		tab := &publish.Table{Holder: h}
		mustClaim(t, tab, "blue", "8000-8001:80-81")
		calls := 0
		h.refuse = func(netip.AddrPort) error {
			if calls++; calls == n {
				return errdefs.ErrConflict
			}
			return nil
		}
		s, err := tab.Change("green", nil, specs(t, "8001-8003:1-3", "9000-9001:1-2", "127.0.0.1:9100:1", "9200:1"), true, name)
		if (err == nil) != (n > 6) && calls >= n {
			t.Fatalf("%d: %v", n, err)
		}
		if err == nil {
			s.Undo()
		}
		h.refuse = nil
		if names := fmt.Sprint(len(h.open), h.open["tcp 0.0.0.0:8000"] != nil, h.open["tcp 0.0.0.0:8001"] != nil); names != "2 true true" {
			t.Errorf("refused at socket %d: %v is left", n, h.open)
		}
		if _, err := tab.Claim("x", specs(t, "8001:1"), name); !errdefs.IsConflict(err) {
			t.Errorf("refused at socket %d: blue lost its port: %v", n, err)
		}
	}
}

// TestFollow: the record after its ports were settled.
func TestFollow(t *testing.T) {
	at := func(text string) []publish.Mapping {
		var out []publish.Mapping
		all, err := publish.ParseSpecs(text)
		if err != nil {
			t.Fatal(err)
		}
		reqs, err := publish.Parse(nil, all, publish.Defaults{IPv6: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&publish.Table{}).Claim("x", reqs, name)
		if err != nil {
			t.Fatal(err)
		}
		return append(out, got...)
	}
	for _, c := range []struct{ what, asked, specs, settled, removed, want, wantSpecs string }{
		{"nothing changed", "80=8080 81=", "if=eth0:1-9:1-9", "8080:80 32768:81 if=eth0:1-9:1-9", "", "80=8080 81=", "if=eth0:1-9:1-9/tcp"},
		{"one came", "80=8080", "", "8080:80 8443:443", "", "443=8443 80=8080", ""},
		{"one came, on one address", "", "", "127.0.0.1:8443:443", "", "443=127.0.0.1:8443", ""},
		{"one went", "80=8080 443=8443", "", "8080:80", "8443:443", "80=8080", ""},
		{"one of two families went", "80=8080", "", "[::]:8080:80", "0.0.0.0:8080:80", "80=:::8080", ""},
		{"one that nobody chose went", "80= 81=", "", "32768:80", "32769:81", "80=", ""},
		{"it leads elsewhere", "80=8080", "", "8080:81", "8080:80", "81=8080", ""},
		{"a part of a row went", "", "if=eth0:1-9:1-9", "if=eth0:1-3:1-3 if=eth0:5-9:5-9", "if=eth0:4:4", "", "if=eth0:1-3:1-3/tcp if=eth0:5-9:5-9/tcp"},
		{"sources came", "80=8080", "", "8080:80 90:90;from=10.0.0.0/8", "", "80=8080", "90:90/tcp;from=10.0.0.0/8"},
		{"an address of the network's own", "80=8080", "", "192.0.2.1:8080:80", "", "80=8080", ""},
		{"a choice", "80=8000-8010", "", "8003:80", "", "80=8000-8010", ""},
	} {
		a := publish.Asked{Bindings: network.PortMap{}}
		for _, f := range strings.Fields(c.asked) {
			p, host, _ := strings.Cut(f, "=")
			b := network.PortBinding{HostPort: host}
			a.Bindings[network.MustParsePort(p)] = append(a.Bindings[network.MustParsePort(p)], b)
		}
		a.Specs, _ = publish.ParseSpecs(c.specs)
		got := a.Follow(at(c.settled), at(c.removed))
		if s := showAsked(got); s != c.want+"|"+c.wantSpecs {
			t.Errorf("%s: %s, want %s|%s", c.what, s, c.want, c.wantSpecs)
		}
	}
}

// TestLose: the record of a container that has ended, after another took ports.
func TestLose(t *testing.T) {
	for lost, want := range map[string]string{
		"0.0.0.0:8080:80":   "81=9090 82=|if=eth0:1-9:1-9/tcp",
		"[::]:8080:80":      "81=9090 82=|if=eth0:1-9:1-9/tcp",
		"if=eth0:4:4":       "80=8080 81=9090 82=|if=eth0:1-3:1-3/tcp if=eth0:5-9:5-9/tcp",
		"192.0.2.1:9090:81": "80=8080 81=9090 82=|if=eth0:1-9:1-9/tcp",
	} {
		a := publish.Asked{Bindings: network.PortMap{}}
		for p, host := range map[string]string{"80/tcp": "8080", "81/tcp": "9090", "82/tcp": ""} {
			a.Bindings[network.MustParsePort(p)] = []network.PortBinding{{HostPort: host}}
		}
		a.Specs, _ = publish.ParseSpecs("if=eth0:1-9:1-9")
		gone, err := publish.ParseSpec(lost)
		if err != nil {
			t.Fatal(err)
		}
		m := publish.Mapping(gone)
		if m.Iface != "" {
			m.HostIP = ip("::")
		}
		left, err := a.Lose([]publish.Mapping{m})
		if err != nil || showAsked(left) != want {
			t.Errorf("lost %s: %s, %v; want %s", lost, showAsked(left), err, want)
		}
	}
}

func showAsked(a publish.Asked) string {
	var bs, specs []string
	for p, all := range a.Bindings {
		for _, b := range all {
			host := b.HostPort
			if b.HostIP.IsValid() {
				host = b.HostIP.String() + ":" + host
			}
			bs = append(bs, fmt.Sprintf("%d=%s", p.Num(), host))
		}
	}
	for _, s := range a.Specs {
		specs = append(specs, s.String())
	}
	slices.Sort(bs)
	return strings.Join(bs, " ") + "|" + strings.Join(specs, " ")
}

// TestDifference: applying it gives what was asked for, and what can stay stays.
func TestDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) []publish.Request {
			var specs []publish.Spec
			for range rapid.IntRange(0, 4).Draw(t, label) {
				s := publish.Spec{Proto: "tcp", Count: 1, ContainerPort: uint16(rapid.IntRange(1, 3).Draw(t, "inside")),
					HostPort: uint16(rapid.IntRange(0, 6).Draw(t, "outside"))}
				if s.HostPort != 0 {
					s.Count = uint16(rapid.IntRange(1, 3).Draw(t, "count"))
				}
				specs = append(specs, s)
			}
			reqs, err := publish.Parse(nil, specs, publish.Defaults{IPv6: true})
			if err != nil {
				t.Fatal(err)
			}
			return reqs
		}
		var tab publish.Table
		have, err := tab.Claim("a", draw("first"), name)
		if err != nil {
			return
		}
		want := draw("then")
		claim, drop := publish.Difference(want, have)
		s, err := tab.Change("a", drop, claim, false, name)
		fresh, ferr := (&publish.Table{}).Claim("a", want, name)
		if ferr != nil { // one port twice
			if err == nil {
				s.Undo()
			}
			return
		}
		if err != nil {
			t.Fatalf("%v to %v: %v, but not on an empty table", have, want, err)
		}
		s.Commit()
		got := publish.Join(append(publish.Without(have, drop), s.Got...))
		if len(slices.Collect(publish.Each(got))) != len(slices.Collect(publish.Each(fresh))) {
			t.Fatalf("%v to %v: %v, want as many as %v", have, want, got, fresh)
		}
		if claim, drop := publish.Difference(want, got); len(claim)+len(drop) != 0 {
			t.Fatalf("once more, of %v for %v: claim %v, drop %v", got, want, claim, drop)
		}
	})
}

func BenchmarkClaim(b *testing.B) {
	for _, others := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprint("of ", others), func(b *testing.B) {
			var tab publish.Table
			for i := range others {
				m := publish.Mapping{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: uint16(1 + 6*i), Count: 1}
				if err := tab.Restore(fmt.Sprint(i), []publish.Mapping{m}, none); err != nil {
					b.Fatal(err)
				}
			}
			reqs := []publish.Request{{Proto: "tcp", ContainerPort: 80, HostIPs: []netip.Addr{ip("0.0.0.0"), ip("::")}, First: 8080, Last: 8080, Count: 1}}
			for b.Loop() {
				got, err := tab.Claim("x", reqs, name)
				if err != nil {
					b.Fatal(err)
				}
				tab.Release("x", got)
			}
		})
	}
}

// BenchmarkTenThousand is a range of 10,000 ports, from what a client sends to
// what the kernel is told.
func BenchmarkTenThousand(b *testing.B) {
	pm := network.PortMap{}
	for i := range 10000 {
		pm[port(uint16(20000+i), "udp")] = []network.PortBinding{{HostPort: fmt.Sprint(20000 + i)}}
	}
	tab := &publish.Table{Holder: &holder{}}
	to := publish.Target{V4: ip("10.0.0.2"), V6: ip("fd00::2"), Link: "br"}
	for b.Loop() {
		reqs, err := publish.Parse(pm, nil, publish.Defaults{IPv6: true})
		if err != nil {
			b.Fatal(err)
		}
		got, err := tab.Claim("x", reqs, name)
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range got {
			publish.Plan(m, to, true)
		}
		tab.Release("x", got)
	}
}

// TestChangesAgainstModel: claims, take-overs and what is taken back, against a
// table of single ports: who has which, and which are held by a socket.
func TestChangesAgainstModel(t *testing.T) {
	ips := []netip.Addr{ip("0.0.0.0"), ip("127.0.0.1"), ip("192.0.2.1"), ip("::")}
	rapid.Check(t, func(t *rapid.T) {
		h := &holder{}
		tab := &publish.Table{Holder: h}
		has := map[netip.AddrPort]string{}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				owner := rapid.StringMatching(`[a-c]`).Draw(t, "owner")
				then := maps.Clone(has)
				var drop []publish.Mapping
				for _, at := range slices.SortedFunc(maps.Keys(has), netip.AddrPort.Compare) {
					if has[at] == owner && rapid.Bool().Draw(t, "drop") {
						drop = append(drop, publish.Mapping{Proto: "tcp", HostIP: at.Addr(), HostPort: at.Port(), Count: 1})
						delete(then, at)
					}
				}
				take, fits := rapid.Bool().Draw(t, "take"), true
				var reqs []publish.Request
				mine := map[netip.AddrPort]bool{}
				for range rapid.IntRange(0, 3).Draw(t, "requests") {
					a := rapid.SampledFrom(ips).Draw(t, "ip")
					first := uint16(rapid.IntRange(1, 6).Draw(t, "first"))
					n := uint16(rapid.IntRange(1, 3).Draw(t, "count"))
					reqs = append(reqs, publish.Request{Proto: "tcp", ContainerPort: 80, HostIPs: []netip.Addr{a}, First: first, Last: first, Count: n})
					for p := first; p < first+n && fits; p++ {
						at := netip.AddrPortFrom(a, p)
						for other := range then {
							same := other == at
							hit := other.Port() == p && other.Addr().Is4() == a.Is4() && (same || other.Addr().IsUnspecified() || a.IsUnspecified())
							fits = fits && (!hit || take && same && !mine[other])
						}
						then[at], mine[at] = owner, true
					}
				}
				s, err := tab.Change(owner, publish.Join(drop), reqs, take, name)
				if (err == nil) != fits {
					t.Fatalf("%s drops %v and wants %v (take: %t) of %v: %v", owner, drop, reqs, take, has, err)
				}
				if err != nil {
					return
				}
				if rapid.Bool().Draw(t, "undo") {
					s.Undo()
					return
				}
				s.Commit()
				has = then
			},
			"": func(t *rapid.T) {
				if len(h.open) != len(has) {
					t.Fatalf("sockets %v, ports %v", h.open, has)
				}
				for at, owner := range has {
					if h.open["tcp "+at.String()] == nil {
						t.Fatalf("%s is held by nothing", at)
					}
					_, err := tab.Claim("x", []publish.Request{{Proto: "tcp", ContainerPort: 1, HostIPs: []netip.Addr{at.Addr()}, First: at.Port(), Last: at.Port(), Count: 1}}, name)
					if err == nil || !strings.Contains(err.Error(), "<") || at.Addr() != ip("0.0.0.0") && !strings.Contains(err.Error(), "<"+owner+">") {
						t.Fatalf("%s is %s's: %v", at, owner, err)
					}
				}
			},
		})
	})
}

// BenchmarkFollow is one port more of a container that has ten thousand.
func BenchmarkFollow(b *testing.B) {
	a := publish.Asked{Bindings: network.PortMap{}}
	for i := range 10000 {
		a.Bindings[port(uint16(20000+i), "udp")] = []network.PortBinding{{HostPort: fmt.Sprint(20000 + i)}}
	}
	row := publish.Mapping{Proto: "udp", HostIP: ip("0.0.0.0"), HostPort: 20000, Count: 10000, ContainerPort: 20000}
	six := row
	six.HostIP = ip("::")
	more := publish.Mapping{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 80, Count: 1, ContainerPort: 80}
	for b.Loop() {
		a.Follow([]publish.Mapping{row, six, more}, nil)
	}
}
