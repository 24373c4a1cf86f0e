package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// The tests of this file have a clock of their own, which goes on when everybody
// waits: how busy the machine is does not matter.

// server is one outside: what it answers, after what time. nil: nothing.
type server func(network string, q *dns.Msg) *dns.Msg

func good(_ string, q *dns.Msg) *dns.Msg { return with(q, 300) }

func with(q *dns.Msg, ttl uint32) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.IPv4(192, 0, 2, 1)}}
	return m
}

func failing(_ string, q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) }

func mute(string, *dns.Msg) *dns.Msg { return nil }

// asker is a client without sockets, whose servers are these; a nil one is a
// port that nobody listens on.
func asker(t *testing.T, servers ...server) *listener {
	t.Helper()
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	s.life, s.end = context.WithCancel(t.Context())
	t.Cleanup(s.Close)
	world, ups := map[string]server{}, []netip.AddrPort{}
	for i, behave := range servers {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 53)
		world[at.String()], ups = behave, append(ups, at)
	}
	s.dial = func(_ context.Context, network, address string) (net.Conn, error) {
		if world[address] == nil {
			return nil, syscall.ECONNREFUSED
		}
		near, far := net.Pipe()
		s.wg.Go(func() { world[address].serve(network, far) })
		return near, nil
	}
	l := &listener{s: s, slots: make(chan struct{}, inFlight)}
	l.client.Store(s.Records().next(nil, Client{Forward: true, Upstreams: ups}, time.Now()))
	return l
}

// serve answers one question, and takes what else comes.
func (behave server) serve(network string, c net.Conn) {
	defer c.Close()
	buf := make([]byte, 512)
	if n, err := c.Read(buf); err == nil {
		skip := map[string]int{"tcp": 2}[network]
		q := new(dns.Msg)
		if err := q.Unpack(buf[skip:n]); err != nil {
			panic(err)
		}
		if m := behave(network, q); m != nil {
			b, _ := m.Pack()
			if network == "tcp" {
				b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
			}
			_, _ = c.Write(b)
		}
	}
	_, _ = io.Copy(io.Discard, c)
}

// lookup is one question, and how long its answer took.
func (l *listener) lookup(t *testing.T, name string) (*dns.Msg, time.Duration) {
	t.Helper()
	q, begin, told := ask(t, name, 0), time.Now(), make(chan []byte, 1)
	b, pend := l.answer(nil, q)
	if pend != nil {
		l.ask(pend, *q, func(b []byte) { told <- b })
		b = <-told
	}
	return read(t, b), time.Since(begin)
}

// found asks for a name that there is, and says how long it took.
func (l *listener) found(t *testing.T, name string) time.Duration {
	t.Helper()
	m, took := l.lookup(t, name)
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("after %v: %v", took, m)
	}
	return took
}

// TestDeadServerCostsNothing: the first server of the list is dead. If it is
// silent it costs a head start until that is known, and then nothing, though it
// is tried now and then.
func TestDeadServerCostsNothing(t *testing.T) {
	for what, c := range map[string]struct {
		first  server
		waited int
	}{"silent": {mute, deadAfter}, "refusing": {nil, 0}} {
		synctest.Test(t, func(t *testing.T) {
			l, waited := asker(t, c.first, good), 0
			for i := range 100 {
				switch took := l.found(t, fmt.Sprintf("h%d.example.com.", i)); took {
				case 0:
				case headStart:
					waited++
				default:
					t.Errorf("%s: question %d took %v", what, i, took)
				}
				time.Sleep(time.Second)
			}
			if waited != c.waited {
				t.Errorf("%s: %d questions had to wait", what, waited)
			}
			time.Sleep(patience)
			ups := l.s.Stats().Upstreams
			if !ups[0].Dead || ups[0].Asked < 10 || ups[0].Asked > 30 || ups[1].Dead {
				t.Errorf("%s: %+v", what, ups)
			}
		})
	}
}

// TestFailureStartsTheNext: of three servers the first is silent and the second
// fails. Then the third is asked at once, and not after a head start of the
// second, too.
func TestFailureStartsTheNext(t *testing.T) {
	for what, second := range map[string]server{"fails": failing, "is not there": nil} {
		synctest.Test(t, func(t *testing.T) {
			if took := asker(t, mute, second, good).found(t, "example.com."); took != headStart {
				t.Errorf("the second %s: %v", what, took)
			}
		})
	}
}

// TestNoSuchNameWaits: the first server is a company's and knows the name, the
// second is a public one and does not. That the first is slow, now or always,
// does not make the name go away; that it is dead does.
func TestNoSuchNameWaits(t *testing.T) {
	public := func(_ string, q *dns.Msg) *dns.Msg {
		time.Sleep(time.Millisecond)
		return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
	}
	for what, c := range map[string]struct {
		first  server
		before time.Duration // what it is known to need
		rcode  int
		took   time.Duration
	}{
		"slow today":      {after(900*time.Millisecond, good), 0, dns.RcodeSuccess, 900 * time.Millisecond},
		"slow always":     {after(700*time.Millisecond, good), 700 * time.Millisecond, dns.RcodeSuccess, 701 * time.Millisecond},
		"does not know":   {after(200*time.Millisecond, public), 0, dns.RcodeNameError, 201 * time.Millisecond},
		"fails":           {after(500*time.Millisecond, failing), 0, dns.RcodeNameError, 500 * time.Millisecond},
		"is not there":    {nil, 0, dns.RcodeNameError, time.Millisecond},
		"silent at first": {mute, 0, dns.RcodeNameError, headStart + time.Millisecond + doubt},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := asker(t, c.first, public)
			if c.before > 0 {
				at := l.client.Load().Upstreams[0]
				l.s.health.asking(at, false)
				l.s.health.answered(at, false, false, c.before)
			}
			if m, took := l.lookup(t, "db.corp.example."); m.Rcode != c.rcode || took != c.took {
				t.Errorf("%s: %s after %v, want %v", what, dns.RcodeToString[m.Rcode], took, c.took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // the public one was dead, and is tried again
		l := asker(t, after(10*time.Millisecond, good), public)
		for range deadAfter {
			l.s.health.failed(l.client.Load().Upstreams[1], false, true)
		}
		l.found(t, "db.corp.example.")
	})
	synctest.Test(t, func(t *testing.T) {
		l := asker(t, mute, public)
		for i := range deadAfter + 1 {
			if _, took := l.lookup(t, fmt.Sprintf("h%d.example.", i)); i == deadAfter && took != time.Millisecond {
				t.Errorf("a dead server is waited for: %v", took)
			}
		}
	})
}

func after(d time.Duration, s server) server {
	return func(network string, q *dns.Msg) *dns.Msg { time.Sleep(d); return s(network, q) }
}

// TestSlowServer: an answer helps for as long as the client waits, whatever the
// server needs and though it does not answer by TCP.
func TestSlowServer(t *testing.T) {
	for _, need := range []time.Duration{again + time.Millisecond, udpPatience / 2, 3 * patience / 4, patience - time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			slow := func(network string, q *dns.Msg) *dns.Msg {
				if network == "tcp" {
					return nil
				}
				time.Sleep(need)
				return with(q, 300)
			}
			if took := asker(t, slow).found(t, "example.com."); took != need {
				t.Errorf("%v, the server needs %v", took, need)
			}
		})
	}
}

// TestLostDatagram: it is sent again, and when the second one is answered the
// first says nothing of the server.
func TestLostDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen sync.Map
		l := asker(t, func(network string, q *dns.Msg) *dns.Msg {
			if _, again := seen.LoadOrStore(q.Question[0].Name, true); !again {
				return nil
			}
			return with(q, 300)
		})
		const questions = 20
		var wg sync.WaitGroup
		for i := range questions {
			wg.Go(func() {
				if took := l.found(t, fmt.Sprintf("h%d.example.com.", i)); took != again {
					t.Errorf("sent again after %v", took)
				}
			})
		}
		wg.Wait()
		time.Sleep(patience)
		if u := l.s.health.states(l.client.Load().Upstreams)[0]; u.mute != 0 || u.total.Failed != questions {
			t.Errorf("%+v", u)
		}
	})
}

// TestDroppedEDNS: something on the way drops datagrams with EDNS. The repetition
// has none, and soon the first has none either.
func TestDroppedEDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := asker(t, func(network string, q *dns.Msg) *dns.Msg {
			if q.IsEdns0() != nil {
				return nil
			}
			return with(q, 300)
		})
		for i := range 2 * deadAfter {
			want := map[bool]time.Duration{true: again}[i < deadAfter]
			if took := l.found(t, fmt.Sprintf("h%d.example.com.", i)); took != want {
				t.Errorf("question %d: %v, want %v", i, took, want)
			}
		}
		time.Sleep(plainFor)
		if took := l.found(t, "later.example.com."); took != again {
			t.Errorf("EDNS is never tried again: %v", took)
		}
	})
}

// TestMuslWaits: who waits for five seconds, as musl does for all its tries,
// is told that there is no answer.
func TestMuslWaits(t *testing.T) {
	for n := range maxUpstreams + 1 {
		synctest.Test(t, func(t *testing.T) {
			servers := make([]server, n)
			for i := range servers {
				servers[i] = mute
			}
			if m, took := asker(t, servers...).lookup(t, "example.com."); m.Rcode != dns.RcodeServerFailure || took >= 5*time.Second {
				t.Errorf("%d servers that are silent: %v after %v", n, m, took)
			}
		})
	}
}

// TestServeStale: when servers fail or are slow, an old answer is better than
// none; it is renewed when they are back.
func TestServeStale(t *testing.T) {
	for what, c := range map[string]struct {
		bad  server
		wait time.Duration // the first time
	}{
		"failing": {failing, 0}, "silent": {mute, staleAfter},
		"slow": {func(_ string, q *dns.Msg) *dns.Msg { time.Sleep(3 * time.Second); return failing("", q) }, staleAfter},
	} {
		synctest.Test(t, func(t *testing.T) {
			var broken atomic.Bool
			l := asker(t, func(network string, q *dns.Msg) *dns.Msg {
				if broken.Load() {
					return c.bad(network, q)
				}
				return with(q, 1)
			})
			l.found(t, "example.com.")
			broken.Store(true)
			time.Sleep(time.Minute)
			if took := l.found(t, "example.com."); took != c.wait {
				t.Errorf("%s: the old answer came after %v", what, took)
			}
			time.Sleep(patience) // they have failed
			for range 20 {
				m, took := l.lookup(t, "example.com.")
				if len(m.Answer) != 1 || m.Answer[0].Header().Ttl > staleTTL || took != 0 {
					t.Errorf("%s: after %v: %v", what, took, m)
				}
				time.Sleep(time.Second)
			}
			if m, _ := l.lookup(t, "other.example.com."); m.Rcode != dns.RcodeServerFailure {
				t.Errorf("%s: what was never known: %v", what, m)
			}
			if n := l.s.Stats().Stale; n != 21 {
				t.Errorf("%s: %d stale answers", what, n)
			}
			broken.Store(false)
			l.found(t, "example.com.") // asks beside the answer
			time.Sleep(holdOff + patience)
			l.found(t, "example.com.")
			synctest.Wait()
			if stale := l.s.Stats().Stale; l.found(t, "example.com.") != 0 || l.s.Stats().Stale != stale {
				t.Errorf("%s: not renewed", what)
			}
		})
	}
}
