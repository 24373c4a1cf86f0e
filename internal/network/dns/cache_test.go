package dns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// answerOf is what a server outside says to a question for example.org, as it
// is kept. rrs are records of the answer section, or of the authority after a "|".
func answerOf(t testing.TB, rcode int, rrs ...string) *entry {
	t.Helper()
	m := new(dns.Msg).SetRcode(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), rcode)
	m.RecursionAvailable = true
	section := &m.Answer
	for _, s := range rrs {
		if s == "|" {
			section = &m.Ns
			continue
		}
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		*section = append(*section, rr)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	end, _ := skipName(b, headerLen)
	e, err := newEntry(b, end+4)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ask makes the query of a client that takes edns bytes; 0: it has no EDNS.
func ask(t testing.TB, name string, edns uint16) *query {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	if edns > 0 {
		m.SetEdns0(edns, false)
	}
	b, _ := m.Pack()
	q, ok := parse(b, false)
	if !ok {
		t.Fatal("no question")
	}
	return &q
}

func read(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

const soaOf = "example.org. 3600 IN SOA ns. me. 1 2 3 4 20"

func TestHowLongAnswersAreKept(t *testing.T) {
	for _, c := range []struct {
		what  string
		rcode int
		rrs   []string
		want  time.Duration
	}{
		{"the least of its records", dns.RcodeSuccess, []string{"example.org. 300 IN CNAME x.", "x. 60 IN A 192.0.2.1"}, time.Minute},
		{"a day is too long", dns.RcodeSuccess, []string{"example.org. 86400 IN A 192.0.2.1"}, time.Hour},
		{"zero", dns.RcodeSuccess, []string{"example.org. 0 IN A 192.0.2.1"}, 0},
		{"less than nothing is zero", dns.RcodeSuccess, []string{"example.org. 4294967295 IN A 192.0.2.1"}, 0},
		{"no such name, for as long as the zone says", dns.RcodeNameError, []string{"|", soaOf}, 20 * time.Second},
		{"no such name, but a minute at most", dns.RcodeNameError, []string{"|", "example.org. 3600 IN SOA ns. me. 1 2 3 4 3600"}, time.Minute},
		{"no data", dns.RcodeSuccess, []string{"|", soaOf}, 20 * time.Second},
		{"no such name, and no word for how long", dns.RcodeNameError, nil, 0},
		{"the end of an alias is missing", dns.RcodeNameError, []string{"example.org. 10 IN CNAME x.", "|", soaOf}, 10 * time.Second},
		{"failures", dns.RcodeServerFailure, []string{"example.org. 300 IN A 192.0.2.1"}, 0},
	} {
		if got := answerOf(t, c.rcode, c.rrs...).ttl; got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestLame: "nothing" from one who does not ask others is no answer, unless it
// has a SOA: some forget to say that they do ask.
func TestLame(t *testing.T) {
	for want, authority := range map[bool]string{true: soaOf, false: "example.org. 3600 IN NS ns."} {
		e := answerOf(t, dns.RcodeSuccess, "|", authority)
		e.wire[3] &^= bitRA
		if again, err := newEntry(e.wire, e.question); err != nil || again.usable() != want {
			t.Errorf("%s: %v", authority, err)
		}
	}
}

// TestKeptAnswer: what a client gets has its own id and spelling, and the TTL
// that is left; when it is over, a short one.
func TestKeptAnswer(t *testing.T) {
	e := answerOf(t, dns.RcodeSuccess, "example.org. 300 IN A 192.0.2.1", "example.org. 200 IN A 192.0.2.2")
	q := ask(t, "eXample.ORG.", 4000)
	for age, want := range map[time.Duration][2]uint32{
		0: {300, 200}, 70 * time.Second: {230, 130}, 199 * time.Second: {101, 1}, 201 * time.Second: {30, 30}, time.Hour: {30, 30},
	} {
		m := read(t, e.reply(nil, q, e.at.Add(age)))
		if got := [2]uint32{m.Answer[0].Header().Ttl, m.Answer[1].Header().Ttl}; got != want {
			t.Errorf("after %v: TTLs %v, want %v", age, got, want)
		}
		if m.Id != q.id || m.Question[0].Name != "eXample.ORG." || !m.RecursionAvailable || m.IsEdns0() == nil {
			t.Errorf("after %v: %v", age, m)
		}
	}
	if m := read(t, e.reply(nil, ask(t, "example.org.", 0), e.at)); m.IsEdns0() != nil {
		t.Error("a client without EDNS gets an OPT record")
	}
}

func TestCacheStaysWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cache
		now := time.Now()
		n := rapid.IntRange(1, 3000).Draw(t, "answers")
		size := rapid.IntRange(12, 20_000).Draw(t, "bytes")
		long := rapid.IntRange(4, 1000).Draw(t, "length of names")
		name := func(i int) key { return key{name: fmt.Sprintf("%0*d", long, i)} }
		for i := range n {
			c.put(name(i), &entry{wire: make([]byte, size), at: now, ttl: time.Minute})
			c.get(name(0), now) // it is used all the time
		}
		entries, bytes := c.size()
		if entries > cacheEntries || bytes > cacheBytes || bytes != entries*(long+size+overhead) {
			t.Fatalf("%d entries, %d bytes", entries, bytes)
		}
		if e, _ := c.get(name(0), now); e == nil {
			t.Fatal("what was used last is gone")
		}
		c.drop()
		if entries, bytes := c.size(); entries+bytes != 0 {
			t.Fatalf("%d entries, %d bytes after dropping", entries, bytes)
		}
	})
}

func TestCacheForgets(t *testing.T) {
	var c cache
	e := answerOf(t, dns.RcodeSuccess, "example.org. 300 IN A 192.0.2.1")
	c.put(key{}, e)
	if got, _ := c.get(key{}, e.at.Add(23*time.Hour)); got != e || got.fresh(e.at.Add(301*time.Second)) {
		t.Error("a stale answer is kept as such for a day")
	}
	if got, _ := c.get(key{}, e.at.Add(25*time.Hour)); got != nil {
		t.Error("and no longer")
	}
}

// TestNewerAnswerThatIsNotKept: an answer for this moment only ends the old
// one, which would be given for a day otherwise.
func TestNewerAnswerThatIsNotKept(t *testing.T) {
	s := Server{Log: slog.New(slog.DiscardHandler)}
	old := answerOf(t, dns.RcodeSuccess, "example.org. 1 IN A 192.0.2.1")
	old.at = old.at.Add(-time.Minute)
	for what, newer := range map[string]*entry{
		"for no time":                 answerOf(t, dns.RcodeSuccess, "example.org. 0 IN A 192.0.2.2"),
		"no such name, without a SOA": answerOf(t, dns.RcodeNameError),
	} {
		s.cache.put(key{}, old)
		s.cache.failed(key{}, time.Now())
		s.flights.of = map[key]*flight{{}: {}}
		s.land(key{}, newer, old)
		if e, _ := s.cache.get(key{}, time.Now()); e != nil {
			t.Error(what, "and the old one is still given")
		}
	}
}

// TestCutInTheMiddle: a server that stops in the middle of a record. Clients
// get the answers that are whole, and nothing of what comes after them.
func TestCutInTheMiddle(t *testing.T) {
	whole := answerOf(t, dns.RcodeSuccess, "example.org. 300 IN A 192.0.2.1", "|", soaOf, soaOf)
	whole.wire[2] |= bitTC >> 8
	e, err := newEntry(whole.wire[:len(whole.wire)-3], whole.question)
	if err != nil {
		t.Fatal(err)
	}
	b := e.reply(nil, ask(t, "example.org.", 1232), e.at)
	m := read(t, b)
	if !m.Truncated || len(m.Answer) != 1 || len(m.Ns)+len(m.Extra) != 1 || m.IsEdns0() == nil || m.Len() != len(b) {
		t.Errorf("%d bytes: %v", len(b), m)
	}
}

// TestHostServersChange: what the old ones said is forgotten.
func TestHostServersChange(t *testing.T) {
	conf := &HostConfig{Given: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}
	s, c := &Server{Host: conf}, &client{}
	k := key{servers: s.upstreams(c).id}
	s.cache.put(k, answerOf(t, dns.RcodeSuccess, "example.org. 300 IN A 192.0.2.1"))
	if k.servers != s.upstreams(c).id || s.Stats().Cached != 1 {
		t.Error("forgotten without a change")
	}
	conf.Given = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:53")}
	if k.servers == s.upstreams(c).id || s.Stats().Cached != 0 {
		t.Error("not forgotten")
	}
}

// TestTruncatedAnswer: what does not fit is cut between two records.
func TestTruncatedAnswer(t *testing.T) {
	var rrs []string
	for i := range 300 {
		rrs = append(rrs, fmt.Sprintf("example.org. 300 IN A 192.0.%d.%d", i/256, i%256))
	}
	e := answerOf(t, dns.RcodeSuccess, append(rrs, "|", soaOf)...)
	for _, edns := range []uint16{0, 600, 1232, 4096} {
		q := ask(t, "example.org.", edns)
		b := e.reply(nil, q, e.at)
		m := read(t, b)
		if len(b) > max(512, int(edns)) || !m.Truncated || len(m.Answer) < 10 || len(m.Ns)+len(m.Extra) > 1 {
			t.Errorf("EDNS %d: %d bytes with %d answers, truncated %t", edns, len(b), len(m.Answer), m.Truncated)
		}
	}
	one := answerOf(t, dns.RcodeSuccess, append([]string{rrs[0], "|"}, slices.Repeat([]string{soaOf}, 20)...)...)
	for _, do := range []bool{false, true} { // signed records belong to the proof
		q := ask(t, "example.org.", 600)
		q.do = do
		if m := read(t, one.reply(nil, q, one.at)); m.Truncated != do || len(m.Answer) != 1 || len(m.Ns) != 0 {
			t.Errorf("what comes along does not fit, DO %t: %v", do, m)
		}
	}
	q := ask(t, "example.org.", 0)
	q.limit = maxTCP
	if m := read(t, e.reply(nil, q, e.at)); m.Truncated || len(m.Answer) != 300 || len(m.Ns) != 1 {
		t.Errorf("over TCP: %d answers", len(m.Answer))
	}
}

// TestPlan: whom is asked when.
func TestPlan(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 53)
	}
	recently := now.Add(-time.Second)
	fresh, quick := state{}, state{rtt: 2 * time.Millisecond}
	slow := state{rtt: 300 * time.Millisecond, asked: recently}
	dead := state{rtt: time.Millisecond, mute: deadAfter, asked: recently}
	mute := state{rtt: time.Millisecond, mute: deadAfter, tcp: true, asked: recently}
	probe, muteProbe := dead, mute
	probe.asked, muteProbe.asked = now.Add(-probeEvery), now.Add(-probeEvery)
	for _, c := range []struct {
		what    string
		servers []state
		want    string // the first three attempts: server, protocol, milliseconds
	}{
		{"one", []state{fresh}, "1u0 1u400 1t800"},
		{"unknown ones, with a head start", []state{fresh, fresh}, "1u0 2u150 1u400"},
		{"a quick one is not waited for as long", []state{quick, fresh}, "1u0 2u30 1u400"},
		{"a slow one comes after a quick one", []state{slow, quick}, "2u0 1u30 2u400"},
		{"a dead one after all others", []state{dead, slow, quick}, "3u0 2u30 1u180"},
		{"but is tried beside them now and then", []state{probe, quick}, "2u0 1u0 2u400"},
		{"all dead: nobody is waited for", []state{dead, dead, dead}, "1u0 2u30 3u60"},
		{"one that answers by TCP only", []state{mute}, "1t0 1u400 1t800"},
		{"and now and then by UDP again", []state{muteProbe}, "1t0 1u0 1t800"},
	} {
		for i := range c.servers {
			c.servers[i].at = at(i + 1)
		}
		var got []string
		for _, a := range plan(c.servers, now)[:3] {
			got = append(got, fmt.Sprintf("%d%s%d", a.at.Addr().As4()[3], map[bool]string{true: "t", false: "u"}[a.tcp], a.when.Milliseconds()))
		}
		if s := fmt.Sprint(got); s != "["+c.want+"]" {
			t.Errorf("%s: %s, want %s", c.what, s, c.want)
		}
	}
}

// TestHealth: two questions without an answer make a server dead, one answer
// brings it back, and memory of servers has an end.
func TestHealth(t *testing.T) {
	var h health
	a := netip.MustParseAddrPort("192.0.2.1:53")
	class := func() int { return h.states([]netip.AddrPort{a})[0].class() }
	h.answered(a, false, false, time.Millisecond)
	h.late(a, false)
	if class() != 0 {
		t.Error("one lost question")
	}
	if turn := h.failed(a, false, true); class() != 2 || turn != died {
		t.Error("two in a row")
	}
	if turn := h.answered(a, true, false, time.Millisecond); turn != cameBack {
		t.Error("nobody is told that it is back")
	}
	if s := h.states([]netip.AddrPort{a})[0]; s.class() != 0 || !s.tcpFirst() {
		t.Error("it answers by TCP")
	}
	h.failed(a, true, true)
	if class() != 2 {
		t.Error("no more")
	}
	h.answered(a, false, false, time.Second)
	h.answered(a, false, false, time.Second)
	if class() != 1 {
		t.Error("it is back, but slow")
	}
	for range deadAfter {
		h.lost(a)
		h.answered(a, false, false, time.Second)
	}
	if h.plain(a) {
		t.Error("datagrams that were lost now and then are taken for dropped EDNS")
	}
	for i := range 2 * maxHealth {
		h.asking(netip.AddrPortFrom(a.Addr(), uint16(i)), false)
	}
	if n := len(h.stats()); n > maxHealth {
		t.Errorf("%d servers are remembered", n)
	}
}

// FuzzAnswer: whatever a server outside says, it is passed over or can be
// passed on, and a client can read it.
func FuzzAnswer(f *testing.F) {
	ok := answerOf(f, dns.RcodeSuccess, "example.org. 300 IN CNAME x.", "x. 60 IN A 192.0.2.1", "|", soaOf).wire
	opt := append(slices.Clone(ok), appendOPT(nil, udpSize, true, dns.RcodeBadVers)...)
	opt[11]++
	for _, b := range append(Malformed(), ok, opt, ok[:len(ok)-3]) {
		f.Add(b, uint16(0))
		f.Add(b, uint16(1232))
	}
	f.Fuzz(func(t *testing.T, b []byte, edns uint16) {
		q := ask(t, "example.ORG.", edns)
		m := q.outgoing(false)
		if len(b) > 1 {
			m[0], m[1] = b[0], b[1]
		}
		e, err := readAnswer(b, m)
		if err != nil || !e.usable() {
			return
		}
		for _, age := range []time.Duration{0, time.Minute, time.Hour} {
			out := e.reply(nil, q, e.at.Add(age))
			if len(out) > q.limit {
				t.Fatalf("%d bytes of %d", len(out), q.limit)
			}
			if h := out[2:4]; h[0]&0x80 == 0 || out[0] != byte(q.id>>8) {
				t.Fatalf("no answer: %x", out)
			}
			// A library may refuse what is inside of records, as it may when it
			// comes from the server; the frame is sound.
			if _, err := newEntry(out, len(q.wire)+headerLen); err != nil {
				t.Fatalf("%v: %x from %x", err, out, b)
			}
		}
	})
}
