package dns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Malformed are packets that have led resolvers astray.
func Malformed() [][]byte {
	ok, _ := new(dns.Msg).SetQuestion("web.", dns.TypeA).Pack()
	header := func(qd, an uint16) []byte {
		b := make([]byte, 12)
		binary.BigEndian.PutUint16(b[4:], qd)
		binary.BigEndian.PutUint16(b[6:], an)
		return b
	}
	answer := slices.Clone(ok)
	answer[2] |= 0x80
	return [][]byte{
		{}, {0}, ok[:11], ok[:14], header(0, 0), header(1, 0), header(65535, 65535), answer,
		append(header(1, 0), 0xc0, 12, 0, 1, 0, 1),        // a name that points to itself
		append(header(1, 0), 0xc0, 14, 0xc0, 12, 0, 1, 0), // two that point to each other
		append(header(1, 0), 63, 'a'),                     // a label that is not there
		append(header(2, 0), ok[12:]...),
		append(slices.Clone(ok), 1, 2, 3),
	}
}

// FuzzPacket: whatever comes in, the answer is one to the question, fits, says
// what the specification below says, and would not be answered itself
// (CVE-2026-35406).
func FuzzPacket(f *testing.F) {
	for _, p := range Malformed() {
		f.Add(p)
	}
	for _, name := range []string{"web.", "WEB.app.", "many.app.", "four.", "no.", "no.app.", "example.com.", "x.localhost.", "2.0.0.10.in-addr.arpa.", "0.10.in-addr.arpa.", "02.0.0.10.in-addr.arpa.", `a\.b.app.`, "."} {
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypePTR, dns.TypeHTTPS} {
			q := new(dns.Msg).SetQuestion(name, t)
			plain, _ := q.Pack()
			q.SetEdns0(1400, true)
			extended, _ := q.Pack()
			f.Add(plain)
			f.Add(extended)
		}
	}
	r := specimen()
	c := r.next(nil, Client{Zones: []string{"n1"}, Forward: true}, time.Now())
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, tcp := range []bool{false, true} {
			q, ok := parse(p, tcp)
			if !ok {
				continue
			}
			b, forward := r.reply(nil, c, &q, time.Now())
			compare(t, r, p, b, forward, &q)
			if _, again := parse(b, tcp); again {
				t.Fatalf("an answer would be answered: %x", b)
			}
		}
	})
}

func specimen() *Records {
	r := newRecords().withZone("n1", Zone{Name: "app", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	add := func(owner string, names []string, addrs ...netip.Addr) {
		r = r.withHost(Host{Zone: "n1", Owner: owner, Names: names, Addrs: addrs})
	}
	add("e1", []string{"Web", "www"}, netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2"))
	add("e2", []string{"four", "www"}, netip.MustParseAddr("10.0.0.3"))
	for i := range 500 {
		add("m", []string{"many"}, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	return r
}

// compare holds an answer against a library's view of question and answer.
func compare(t *testing.T, r *Records, p, b []byte, forward bool, q *query) {
	if forward {
		if len(b) != 0 {
			t.Fatalf("forwarded, and answered: %x", b)
		}
		return
	}
	got := new(dns.Msg)
	if err := got.Unpack(b); err != nil {
		t.Fatalf("a library cannot read the answer: %v: %x", err, b)
	}
	if len(b) > q.limit || got.Id != q.id || !got.Response {
		t.Fatalf("%d bytes of %d: %v", len(b), q.limit, got)
	}
	asked := new(dns.Msg)
	if err := asked.Unpack(p); err != nil || len(asked.Question) != 1 || asked.Opcode != dns.OpcodeQuery || got.Rcode == dns.RcodeFormatError {
		return
	}
	if got.Question[0] != asked.Question[0] || (got.IsEdns0() != nil) != (asked.IsEdns0() != nil) {
		t.Fatalf("answer to another question: %v, asked %v", got, asked)
	}
	if got.Rcode > dns.RcodeNameError {
		return
	}
	want, rcode := specified(r, asked.Question[0])
	var have []string
	for _, rr := range got.Answer {
		have = append(have, rr.String())
	}
	slices.Sort(have)
	if got.Rcode != rcode || !got.Truncated && !slices.Equal(have, want) || got.Truncated && len(have) >= len(want) {
		t.Fatalf("%v\nsays %d: %q\nwant %d: %q", asked, got.Rcode, have, rcode, want)
	}
	if soa := len(got.Ns) == 1 && got.Ns[0].Header().Rrtype == dns.TypeSOA; soa != (len(want) == 0) {
		t.Fatalf("SOA %t with %d answers", soa, len(want))
	}
}

// specified is the answer section by the book: everything that is known, looked
// through.
func specified(r *Records, q dns.Question) (answer []string, rcode int) {
	z, _ := r.zones.get("n1")
	name, rcode := strings.ToLower(strings.TrimSuffix(q.Name, ".")), dns.RcodeNameError
	say := func(t uint16, data string) {
		rcode = dns.RcodeSuccess
		if q.Qtype == t || q.Qtype == dns.TypeANY {
			rr, err := dns.NewRR(fmt.Sprintf("x. 5 IN %s %s", dns.TypeToString[t], data))
			if err != nil {
				panic(err)
			}
			rr.Header().Name = q.Name
			answer = append(answer, rr.String())
		}
	}
	z.names.root.all(func(n named, _ struct{}) bool {
		if name == n.name || name == n.name+".app" {
			say(map[bool]uint16{true: dns.TypeA, false: dns.TypeAAAA}[n.addr.Is4()], n.addr.String())
		}
		return true
	})
	z.ptr.root.all(func(b back, _ struct{}) bool {
		if arpa, _ := dns.ReverseAddr(b.addr.String()); arpa == name+"." {
			say(dns.TypePTR, b.name+".app.")
		}
		return true
	})
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		say(dns.TypeA, "127.0.0.1")
		say(dns.TypeAAAA, "::1")
	}
	switch p, below, ok := reverse(name); {
	case !ok || below:
	case !p.IsSingleIP() && netip.MustParsePrefix("10.0.0.0/8").Contains(p.Addr()):
		rcode = dns.RcodeSuccess // there are names below
	case p.IsSingleIP() && p.Addr().IsLoopback():
		say(dns.TypePTR, "localhost.")
	}
	slices.Sort(answer)
	return answer, rcode
}
