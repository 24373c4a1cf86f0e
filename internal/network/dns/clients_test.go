package dns_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	isledns "isle/internal/network/dns"
)

// libc is how a C library looks names up: what it reads from resolv.conf.
type libc struct {
	musl   bool
	search []string
	ndots  int
}

// names are what is asked, in order, until one has an answer.
func (c libc) names(name string) []string {
	var out []string
	asIs := strings.Count(name, ".") >= c.ndots
	if asIs {
		out = append(out, name+".")
		if c.musl {
			return out // musl searches only names with fewer dots
		}
	}
	for _, s := range c.search {
		out = append(out, name+"."+s+".")
	}
	if !asIs {
		out = append(out, name+".")
	}
	return out
}

// lookup is getaddrinfo: A and AAAA of each name, from one socket, side by
// side as musl does it or one after the other. "No data" ends musl's search;
// glibc goes on.
func (c libc) lookup(t *testing.T, at, name string) []string {
	t.Helper()
	conn, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, n := range c.names(name) {
		addrs, rcodes := c.both(t, conn, n)
		if len(addrs) > 0 {
			return addrs
		}
		if c.musl && !slices.Contains(rcodes, dns.RcodeNameError) {
			return nil
		}
	}
	return nil
}

func (c libc) both(t *testing.T, conn net.Conn, name string) (addrs []string, rcodes []int) {
	t.Helper()
	take := func() {
		m := new(dns.Msg)
		buf := make([]byte, 512)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err == nil {
			err = m.Unpack(buf[:n])
		}
		if err != nil {
			t.Fatal(err)
		}
		rcodes = append(rcodes, m.Rcode)
		for _, rr := range m.Answer {
			f := strings.Fields(rr.String())
			addrs = append(addrs, f[len(f)-1])
		}
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		b, _ := new(dns.Msg).SetQuestion(name, qtype).Pack()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if !c.musl {
			take()
		}
	}
	for len(rcodes) < 2 {
		take()
	}
	slices.Sort(addrs)
	return addrs, rcodes
}

// listener of names: a server outside that has an address for whatever ends in
// one of these, and hears what is asked.
type wildcard struct {
	mu    sync.Mutex
	heard []string
}

func (w *wildcard) handle(suffix string) handler {
	return func(rw dns.ResponseWriter, q *dns.Msg) {
		w.mu.Lock()
		w.heard = append(w.heard, q.Question[0].Name)
		w.mu.Unlock()
		if suffix != "" && strings.HasSuffix(q.Question[0].Name, suffix) && q.Question[0].Qtype == dns.TypeA {
			says("203.0.113.66", dns.RcodeSuccess)(rw, q)
		} else {
			says("", dns.RcodeNameError)(rw, q)
		}
	}
}

func (w *wildcard) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.heard)
	return slices.Compact(w.heard)
}

// TestSearchDomains: what programs find, and what leaves, with both C
// libraries. Networks: app (here "db" is at 10.0.0.3). Isle writes ndots:0; the
// others are a user's own.
func TestSearchDomains(t *testing.T) {
	const db, outside = "10.0.0.3", "203.0.113.66"
	for _, c := range []struct {
		name     string
		search   string
		ndots    int
		wildcard string // the server outside answers below this
		glibc    string
		musl     string
		leaves   string // what is asked outside by either
	}{
		{"db", "", 0, ".", db, db, ""},
		{"db", "corp.example", 0, "corp.example.", db, db, ""},
		{"db", "corp.example", 1, "", db, db, "db.corp.example."}, // the user asked for the domain first
		{"db", "corp.example", 5, "", db, db, "db.corp.example."},
		{"db", "corp.example", 1, "corp.example.", outside, outside, "db.corp.example."}, // and is told that there is one
		{"db", "corp.example app", 1, ".app.", db, db, "db.corp.example."},
		{"db", "app", 1, ".", db, db, ""},
		{"db", "app corp.example", 5, "corp.example.", db, db, ""},
		{"db.app", "corp.example", 0, "corp.example.", db, db, ""},
		{"db.app", "corp.example", 1, "corp.example.", db, db, ""},
		{"nobody", "app", 1, ".", "", "", ""},
		{"nobody.app", "", 0, ".", "", "", ""},
		{"www.example.org", "app", 0, ".", outside, outside, "www.example.org."},
		{"www.example.org", "app", 5, "example.org.", outside, outside, "www.example.org. www.example.org.app."},
		{"db.corp.example", "", 0, ".", outside, outside, "db.corp.example."},   // in full it means what it says
		{"shop.example.app", "", 0, ".", outside, outside, "shop.example.app."}, // "app" is a domain of the world, too
	} {
		for _, musl := range []bool{false, true} {
			var w wildcard
			up := newUpstream(t, w.handle(c.wildcard))
			l := outsideLab(t, up.at)
			lib := libc{musl, strings.Fields(c.search), c.ndots}
			want := map[bool]string{false: c.glibc, true: c.musl}[musl]
			if got := strings.Join(lib.lookup(t, l.udp, c.name), " "); got != want {
				t.Errorf("%s, %+v: found %q, want %q", c.name, lib, got, want)
			}
			if left := strings.Join(w.names(), " "); left != c.leaves {
				t.Errorf("%s, %+v: asked outside for %q, want %q", c.name, lib, left, c.leaves)
			}
		}
	}
}

// TestCVE_2025_8283: a server outside that answers everything gets no chance to
// answer for a container, neither while it is there nor right after it, its
// network or the client's place on the network is gone.
func TestCVE_2025_8283(t *testing.T) {
	db := isledns.Host{Zone: "n1", Owner: "e2", Names: []string{"db", "www"}, Addrs: []netip.Addr{ip("10.0.0.3")}}
	for what, event := range map[string]func(l *lab){
		"while it is there":     func(*lab) {},
		"the container is gone": func(l *lab) { l.Change([]isledns.Host{db}, nil) },
		"the network is gone":   func(l *lab) { l.DropZone("n1") },
		"the network is gone, and then the client's place": func(l *lab) {
			l.DropZone("n1")
			l.SetClient("c1", outsideOnly(l))
		},
		"the client has left it": func(l *lab) { l.SetClient("c1", outsideOnly(l)) },
		"it has left and come to another": func(l *lab) {
			l.SetClient("c1", outsideOnly(l))
			c := outsideOnly(l)
			c.Zones = []string{"n2"}
			l.SetClient("c1", c)
		},
		"it has gone and come back elsewhere": func(l *lab) {
			l.Detach("c1")
			u, tcp := listen(t)
			l.Attach("c1", u, tcp, outsideOnly(l))
			l.udp, l.tcp = u.LocalAddr().String(), tcp.Addr().String()
		},
		"it has moved to other sockets": func(l *lab) {
			u, tcp := listen(t)
			l.Attach("c1", u, tcp, outsideOnly(l))
			l.udp, l.tcp = u.LocalAddr().String(), tcp.Addr().String()
		},
	} {
		t.Run(what, func(t *testing.T) {
			up := newUpstream(t, says("203.0.113.66", dns.RcodeSuccess))
			l := outsideLab(t, up.at)
			l.ups = []netip.AddrPort{up.at}
			event(l)
			for _, name := range []string{
				"db.", "DB.app.", "www.app.", "anything.app.", "app.",
				"3.0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.", "lb._dns-sd._udp.0.0.0.10.in-addr.arpa.", // who asks for services
				"3.0.0.0.0.0.a.0.f.f.f.f" + strings.Repeat(".0", 20) + ".ip6.arpa.", // 10.0.0.3 as IPv6 has it: ::ffff:a00:3
				"_tcp." + strings.Repeat("0.", 14) + "d.f.ip6.arpa.",
			} {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
					if got := text(l.ask(t, "udp", name, qtype, nil)); strings.Contains(got, "203.0.113.66") || strings.HasPrefix(got, "SERVFAIL") {
						t.Errorf("%s: %s", name, got)
					}
				}
			}
			if n := up.asked.Load(); n != 0 {
				t.Errorf("asked outside %d times", n)
			}
			if got := text(l.ask(t, "udp", "www.example.org.", dns.TypeA, nil)); got != "NOERROR 203.0.113.66" {
				t.Error("and others:", got)
			}
		})
	}
}

// outsideOnly is a client of l on no network.
func outsideOnly(l *lab) isledns.Client {
	return isledns.Client{Forward: true, Upstreams: l.ups}
}

// TestNothingOfTheKind: a name of ours has nothing of most kinds, which
// clients may remember for a moment; it is never "no such name", with which
// musl would give up on its other addresses.
func TestNothingOfTheKind(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true})
	for _, name := range []string{"db.", "db.app.", "nobody.", "nobody.app."} {
		rcode := map[bool]int{true: dns.RcodeSuccess, false: dns.RcodeNameError}[strings.HasPrefix(name, "db")]
		for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeSOA, dns.TypeNS, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeSRV, dns.TypeCNAME, dns.TypePTR, dns.TypeDS} {
			m := l.ask(t, "udp", name, qtype, nil)
			if m.Rcode != rcode || len(m.Answer) != 0 || len(m.Ns) != 1 || !m.Authoritative || !m.RecursionAvailable {
				t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], m)
			}
			soa, ok := m.Ns[0].(*dns.SOA)
			if !ok || soa.Hdr.Ttl > 5 || soa.Minttl > 5 || !dns.IsSubDomain(soa.Hdr.Name, name) {
				t.Errorf("%s %s: %v", name, dns.TypeToString[qtype], m.Ns[0])
			}
		}
	}
}

// TestSpelling: the question comes back as it was spelled, which clients check
// against forgers.
func TestSpelling(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true, Upstreams: []netip.AddrPort{newUpstream(t, says("192.0.2.1", dns.RcodeSuccess)).at}})
	for _, name := range []string{"wEb.", "WEB.aPP.", "eXaMple.CoM.", "ExamplE.com.", "nObody."} {
		for _, network := range []string{"udp", "tcp"} {
			m := l.ask(t, network, name, dns.TypeA, nil)
			if m.Question[0].Name != name || (m.Authoritative && len(m.Answer) > 0 && m.Answer[0].Header().Name != name) {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// TestServiceOfManyContainers: a name with more addresses than a datagram
// takes. Clients without TCP, as older musl, use what there is.
func TestServiceOfManyContainers(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	const many = 500
	var hosts []isledns.Host
	for i := range many {
		hosts = append(hosts, isledns.Host{Zone: "n1", Owner: fmt.Sprint("m", i), Names: []string{fmt.Sprint("m", i), "many"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	l.Change(nil, hosts)
	seen := map[string]bool{}
	for range 100 {
		m := l.ask(t, "udp", "many.", dns.TypeA, nil)
		if !m.Truncated || len(m.Answer) < 25 {
			t.Fatalf("%d answers, truncated %t", len(m.Answer), m.Truncated)
		}
		for _, rr := range m.Answer {
			seen[rr.(*dns.A).A.String()] = true
		}
	}
	if len(seen) < many*9/10 {
		t.Errorf("only %d of %d are ever told", len(seen), many)
	}
	if m := l.ask(t, "tcp", "many.", dns.TypeA, nil); m.Truncated || len(m.Answer) != many {
		t.Errorf("over TCP: %d answers", len(m.Answer))
	}
	l.Change(hosts[1:], nil)
	if got := text(l.ask(t, "udp", "many.", dns.TypeA, nil)); got != "NOERROR 10.0.0.0" {
		t.Error("one is left:", got)
	}
}

// pipe is a TCP connection on which questions are asked one after the other
// without waiting.
type pipe struct{ net.Conn }

func (l *lab) pipe(t *testing.T) pipe {
	t.Helper()
	c, err := net.Dial("tcp", l.tcp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return pipe{c}
}

func (p pipe) ask(t *testing.T, id uint16, name string) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id = id
	b, _ := m.Pack()
	if _, err := p.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		t.Fatal(err)
	}
}

func (p pipe) answer(t *testing.T) *dns.Msg {
	t.Helper()
	m, err := (&dns.Conn{Conn: p}).ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSlowAnswerHoldsUpNoOther: on one connection, what is known comes before
// what waits for a server outside.
func TestSlowAnswerHoldsUpNoOther(t *testing.T) {
	hold := make(chan struct{})
	l := outsideLab(t, newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { <-hold; says("192.0.2.1", dns.RcodeSuccess)(w, q) }).at)
	p := l.pipe(t)
	p.ask(t, 1, "slow.example.com.")
	p.ask(t, 2, "web.")
	p.ask(t, 3, "db.")
	for _, want := range []uint16{2, 3} {
		if m := p.answer(t); m.Id != want {
			t.Errorf("answer to %d, want %d", m.Id, want)
		}
	}
	close(hold)
	if m := p.answer(t); m.Id != 1 || text(m) != "NOERROR 192.0.2.1" {
		t.Error(m)
	}
}

// TestHalfClosed: who closes its side after asking gets its answers.
func TestHalfClosed(t *testing.T) {
	hold := make(chan struct{})
	l := outsideLab(t, newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { <-hold; says("192.0.2.1", dns.RcodeSuccess)(w, q) }).at)
	p := l.pipe(t)
	p.ask(t, 1, "example.com.")
	p.ask(t, 2, "web.")
	if err := p.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint16{2, 1} {
		if m := p.answer(t); m.Id != want || m.Rcode != dns.RcodeSuccess {
			t.Errorf("want an answer to %d: %v", want, m)
		}
		if want == 2 {
			close(hold)
		}
	}
	if n, err := p.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the last answer: %d, %v", n, err)
	}
}

// TestHalfAQuestion: one who sends a part of a question and then nothing more is
// not waited for as long as one who is only idle.
func TestHalfAQuestion(t *testing.T) {
	t.Parallel()
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	idle, half := l.pipe(t), l.pipe(t)
	if _, err := half.Write([]byte{0, 30, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := half.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("half a question: %d, %v", n, err)
	}
	idle.ask(t, 1, "web.")
	if m := idle.answer(t); m.Id != 1 {
		t.Error(m)
	}
}

// TestLongQuestion: one that a client has padded beyond a datagram of ours, as
// it may by TCP, is a question like others.
func TestLongQuestion(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	m := l.ask(t, "tcp", "web.", dns.TypeA, func(q *dns.Msg) {
		q.SetEdns0(1232, false)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 2000)}}
	})
	if got := text(m); got != "NOERROR 10.0.0.2" {
		t.Error(got)
	}
}

// TestOldConnectionsMakeRoom: a client that keeps connections open can always
// open another one, and loses the one that has been idle for longest.
func TestOldConnectionsMakeRoom(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	var pipes []pipe
	for i := range 40 {
		p := l.pipe(t)
		p.ask(t, uint16(i), "web.")
		p.answer(t)
		if i > 0 {
			pipes[0].ask(t, 99, "web.") // the first one is used all the time
			pipes[0].answer(t)
		}
		pipes = append(pipes, p)
	}
	if _, err := pipes[1].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the one that was idle for longest: %v", err)
	}
	for _, i := range []int{0, 39} {
		pipes[i].ask(t, 7, "db.")
		if m := pipes[i].answer(t); m.Id != 7 {
			t.Error(m)
		}
	}
}

// TestSlowReader: a client that asks and does not read is cut off; it keeps
// nobody else from an answer, and what it has asked is not kept for ever.
func TestSlowReader(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	var many isledns.Host
	many.Zone, many.Owner, many.Names = "n1", "many", []string{"many"}
	for i := range 4000 {
		many.Addrs = append(many.Addrs, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	l.Change(nil, []isledns.Host{many})
	p := l.pipe(t)
	b, _ := new(dns.Msg).SetQuestion("many.", dns.TypeA).Pack()
	b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	for range 100_000 { // answers of 64 KB each
		if _, err := p.Write(b); err != nil {
			break // it does not take them, after all
		}
		if got := l.Stats().Queries; got > 0 && got%10 == 0 {
			if got := text(l.ask(t, "udp", "web.", dns.TypeA, nil)); got != "NOERROR 10.0.0.2" {
				t.Fatal(got)
			}
		}
	}
	if n := l.Stats().Queries; n > 5000 {
		t.Errorf("%d questions were answered to one who does not read", n)
	}
}

// TestTwentyThousandNames: what there is is found, and what goes is gone.
func TestTwentyThousandNames(t *testing.T) {
	s := &isledns.Server{Log: slog.New(slog.DiscardHandler)}
	l := labOf(t, s, isledns.Client{Zones: []string{"n"}})
	fill(s, 20_000)
	for _, i := range []int{0, 1, 9_999, 19_999} {
		want := fmt.Sprintf("NOERROR 10.%d.%d.%d", i>>16, i>>8&255, i&255)
		for _, name := range []string{fmt.Sprintf("c%d.", i), fmt.Sprintf("c%d.app.", i), fmt.Sprintf("%012x.", i)} {
			if got := text(l.ask(t, "udp", name, dns.TypeA, nil)); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	}
	if n := len(s.List("n")); n != 40_000 {
		t.Errorf("%d names are listed", n)
	}
	s.DropZone("n")
	if got := text(l.ask(t, "udp", "c1.", dns.TypeA, nil)); got != "NXDOMAIN" {
		t.Error(got)
	}
}

// TestEverythingAtOnce: clients ask while containers, networks and clients come
// and go, and the end comes in the middle. What is there all the time is
// answered all the time.
func TestEverythingAtOnce(t *testing.T) {
	up := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess))
	l := outsideLab(t, up.at)
	other := isledns.Host{Zone: "n2", Owner: "x", Names: []string{"x", "www"}, Addrs: []netip.Addr{ip("10.0.1.9")}}
	client := isledns.Client{Zones: []string{"n1", "n2"}, Forward: true, Upstreams: []netip.AddrPort{up.at}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	again := func(do func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					do(i)
				}
			}
		})
	}
	again(func(int) { l.Change(nil, []isledns.Host{other}); l.Change([]isledns.Host{other}, nil) })
	again(func(int) { l.SetZone("n3", isledns.Zone{Name: "three"}); l.DropZone("n3") })
	again(func(i int) { client := client; client.Zones = client.Zones[:1+i%2]; l.SetClient("c1", client) })
	again(func(i int) {
		u, tcp := listen(t)
		l.Attach("c2", u, tcp, client)
		_, _, _ = (&dns.Client{Timeout: time.Millisecond}).Exchange(new(dns.Msg).SetQuestion(fmt.Sprintf("h%d.example.com.", i), dns.TypeA), u.LocalAddr().String())
		l.Detach("c2")
	})
	again(func(int) { l.List("n2"); l.Stats() })
	for i := range 100 {
		for name, want := range map[string]string{"web.": "NOERROR 10.0.0.2", "db.app.": "NOERROR 10.0.0.3", fmt.Sprintf("h%d.example.com.", i%7): "NOERROR 192.0.2.1"} {
			if got := text(l.ask(t, []string{"udp", "tcp"}[i%2], name, dns.TypeA, nil)); got != want {
				t.Fatalf("%s: %s, want %s", name, got, want)
			}
		}
	}
	l.Close()
	close(stop)
	wg.Wait()
}
