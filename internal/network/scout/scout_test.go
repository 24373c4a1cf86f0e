package scout

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isle/internal/netspec"
	"isle/internal/network"
)

// lan is a wire between stations in memory.
type lan struct {
	mu       sync.Mutex
	stations map[netspec.MAC]*station
	drop     func(from, to netspec.MAC, packet []byte) bool
}

type station struct {
	lan *lan
	mac netspec.MAC
	in  chan frame
	end chan struct{}
}

type frame struct {
	packet []byte
	from   netspec.MAC
}

func (l *lan) join(i byte) *station {
	s := &station{l, netspec.MAC{2, i}, make(chan frame, 100), make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stations[s.mac] = s
	return s
}

func (l *lan) breaks(drop func(from, to netspec.MAC, packet []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop = drop
}

func (s *station) Send(packet []byte, to netspec.MAC) error {
	s.lan.mu.Lock()
	defer s.lan.mu.Unlock()
	if o := s.lan.stations[to]; o != nil && (s.lan.drop == nil || !s.lan.drop(s.mac, to, packet)) {
		o.in <- frame{packet, s.mac}
	}
	return nil
}

func (s *station) Receive(b []byte) (int, netspec.MAC, error) {
	select {
	case f := <-s.in:
		return copy(b, f.packet), f.from, nil
	case <-s.end:
		return 0, netspec.MAC{}, errors.New("closed")
	}
}

func (s *station) Station(a netip.Addr) (netspec.MAC, bool, error) {
	return netspec.MAC{2, a.AsSlice()[len(a.AsSlice())-1]}, true, nil
}

func (s *station) Close() error { close(s.end); return nil }

// host is one with a Scout that has an errand.
type host struct {
	*Scout
	errand atomic.Pointer[network.Errand]
	gets   sync.Map
	told   atomic.Int64
	end    func()
}

const tick = 5 * time.Millisecond

func newHost(t *testing.T, l *lan, i byte, v6 bool, path string, others ...byte) *host {
	t.Helper()
	h := &host{Scout: &Scout{Every: tick, Path: path, Log: slog.New(slog.DiscardHandler)}}
	h.Open = func(string, bool, uint16) (Wire, error) { return l.join(i), nil }
	h.errand.Store(errand(i, v6, others...))
	h.begin(t)
	return h
}

func (h *host) begin(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx, func() network.Errand { return *h.errand.Load() }, func(host string, gets bool) { h.told.Add(1); h.gets.Store(host, gets) })
	}()
	h.end = func() { cancel(); <-done }
	t.Cleanup(h.end)
}

func (h *host) reaches(host string) bool { v, _ := h.gets.Load(host); return v == true }

func errand(i byte, v6 bool, others ...byte) *network.Errand {
	at, from, to := "192.0.2.", "10.9.0.2", "10.9.0.1"
	if v6 {
		at, from, to = "2001:db8::", "fd00:9::2", "fd00:9::1"
	}
	e := &network.Errand{Known: true, Self: string('a' + rune(i)), Addr: netip.MustParseAddr(at + string('0'+rune(i))), Link: "eth0"}
	for _, o := range others {
		e.Targets = append(e.Targets, network.Target{Host: string('a' + rune(o)), Addr: netip.MustParseAddr(at + string('0'+rune(o))), From: netip.MustParseAddr(from), To: netip.MustParseAddr(to)})
	}
	return e
}

func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(tick) {
		if time.Now().After(end) {
			t.Fatal("it does not come about: " + what)
		}
	}
}

// TestReached: hosts find each other, notice when packets are lost either way, and when
// they get there again; what they found outlives the process.
func TestReached(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		l, path := &lan{stations: map[netspec.MAC]*station{}}, filepath.Join(t.TempDir(), "direct")
		a, b := newHost(t, l, 1, v6, path, 2), newHost(t, l, 2, v6, "", 1)
		both := func() bool { return a.reaches("c") && b.reaches("b") }
		soon(t, "both are reached", both)
		l.breaks(func(from, _ netspec.MAC, _ []byte) bool { return from == netspec.MAC{2, 1} })
		soon(t, "neither is reached when one way is cut", func() bool { return !a.reaches("c") && !b.reaches("b") })
		l.breaks(nil)
		soon(t, "both are reached again", both)
		a.end()
		told := a.told.Load()
		a.errand.Store(&network.Errand{})
		a.begin(t)
		time.Sleep(3 * patience * tick) // while the cluster is not heard of nothing is forgotten
		a.errand.Store(errand(1, v6, 2))
		soon(t, "it goes on", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.peers) == 1 })
		time.Sleep(3 * patience * tick)
		if now := a.told.Load(); now != told || !slices.Equal(a.Proven(), []string{"c"}) {
			t.Errorf("a new process tells %d times what was known, and knows %v", now-told, a.Proven())
		}
		a.errand.Store(errand(1, v6))
		soon(t, "a host that is not in question is not reached", func() bool { return !a.reaches("c") })
		if b, err := os.ReadFile(path); err != nil || len(b) > 0 {
			t.Errorf("%q is written down: %v", b, err)
		}
	}
}

// TestAnswersNobody: who is not in question here gets no answer, nor does who asks for
// another host; and a wrong answer is none.
func TestAnswersNobody(t *testing.T) {
	l := &lan{stations: map[netspec.MAC]*station{}}
	a := newHost(t, l, 1, false, "", 3)
	newHost(t, l, 2, false, "", 1)
	soon(t, "it asks", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.wire != nil })
	stranger := l.join(3)
	from, to := netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1")
	self, friend := nameOf("b"), nameOf("d")
	for _, n := range []note{
		{ask, [8]byte{1}, nameOf("x"), self}, {ask, [8]byte{1}, friend, nameOf("x")},
		{answer, [8]byte{1}, friend, self}, {answer, [8]byte{}, friend, self}, {'z', [8]byte{1}, friend, self},
	} {
		p := packet(from, to, n)
		for cut := range 3 {
			_ = stranger.Send(p[:len(p)-cut*20], netspec.MAC{2, 1})
		}
	}
	_ = stranger.Send(packet(from, to, note{ask, [8]byte{7}, friend, self}), netspec.MAC{2, 1})
	for {
		f := <-stranger.in
		n, ok := parse(f.packet)
		if !ok || n.kind == ask {
			continue
		}
		if n.kind != answer || n.number != [8]byte{7} || n.to != friend {
			t.Errorf("it answers %+v", n)
		}
		break
	}
	if a.reaches("d") || a.reaches("c") {
		t.Error("it believes what nobody answered")
	}
}
