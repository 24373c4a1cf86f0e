// Package scout finds out whether packets with the addresses of containers get from this
// host to others as they are. Once in a while it sends each host that is in question one,
// in a frame to its station, past all routes and rules of this host, and the other host's
// Scout answers in the same way. So an answer says that nobody on the wire minds such
// addresses, in either direction, and that the other host takes what comes like that: it
// answers none that it does not reach in the same way itself.
//
//	s := &scout.Scout{Open: open, Path: "/run/isle/direct", Log: log}
//	go s.Run(ctx, manager.errand, manager.Gets)
//
// It costs one packet and its answer for each host, however many networks there are.
// What it found is kept in a file, so that nothing changes when isled is started anew.
//
// It does not see what stands behind the wire: a firewall of somebody else on the other
// host that forwards nothing.
package scout

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"isle/internal/netspec"
	"isle/internal/network"
)

const (
	every    = time.Second
	patience = 3 // questions in a row without an answer, after which a host is not reached
)

// Wire sends and receives packets in frames of one interface. Receive ends with an error
// after Close.
type Wire interface {
	Send(packet []byte, to netspec.MAC) error
	Receive(b []byte) (n int, from netspec.MAC, err error)
	// Station is where a neighbour is. One that is not known is asked for.
	Station(a netip.Addr) (mac netspec.MAC, ok bool, err error)
	Close() error
}

// Scout is one. Its exported fields are set once.
type Scout struct {
	// Open opens a Wire for UDP of one family to a port. Required.
	Open  func(link string, v6 bool, port uint16) (Wire, error)
	Path  string        // of the file with what was found; "": it is not kept
	Every time.Duration // 0: a second
	Log   *slog.Logger  // required

	told   map[string]bool // hosts that it was told of that they are reached
	news   chan struct{}   // there is something to tell
	failed place           // where no Wire could be opened last

	mu     sync.Mutex
	self   name
	peers  map[name]*peer
	wire   Wire
	on     place
	served sync.WaitGroup
}

var _ network.Scout = (*Scout)(nil)

// place is where a Wire is.
type place struct {
	link string
	v6   bool
}

// peer is a host in question.
type peer struct {
	network.Target
	number            [8]byte // of the last question; zero: none was sent
	answered, reached bool
	missed            int
}

// Proven implements network.Scout.
func (s *Scout) Proven() []string {
	b, err := os.ReadFile(s.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) && s.Path != "" {
		s.Log.Warn("read which hosts are reached without a tunnel", "err", err)
	}
	return strings.Fields(string(b))
}

// Run implements network.Scout.
func (s *Scout) Run(ctx context.Context, want func() network.Errand, tell func(host string, gets bool)) {
	s.told, s.self, s.peers, s.news = map[string]bool{}, name{}, map[name]*peer{}, make(chan struct{}, 1)
	for _, h := range s.Proven() {
		s.told[h] = true
	}
	defer s.close()
	tick := time.NewTicker(cmp.Or(s.Every, every))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.round(want())
		case <-s.news:
		}
		s.tell(tell)
	}
}

// round counts what was answered, and asks again.
func (s *Scout) round(e network.Errand) {
	if !e.Known {
		return
	}
	s.open(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.self = nameOf(e.Self)
	s.follow(e.Targets)
	for _, p := range s.peers {
		p.count()
		s.ask(p)
	}
}

// follow has the peers be those that are in question.
func (s *Scout) follow(targets []network.Target) {
	before := s.peers
	s.peers = make(map[name]*peer, len(targets))
	for _, t := range targets {
		p, ok := before[nameOf(t.Host)]
		if !ok {
			p = &peer{reached: s.told[t.Host]}
		}
		p.Target, s.peers[nameOf(t.Host)] = t, p
	}
}

// count judges by the last question.
func (p *peer) count() {
	switch {
	case p.answered:
		p.missed = 0
	case p.number != [8]byte{}:
		p.missed++
	}
	p.reached = p.answered || p.reached && p.missed < patience
	p.answered = false
}

func (s *Scout) ask(p *peer) {
	_, _ = rand.Read(p.number[:])
	if s.wire == nil {
		return
	}
	mac, ok, err := s.wire.Station(p.Addr)
	if err == nil && ok {
		err = s.wire.Send(packet(p.From, p.To, note{ask, p.number, s.self, nameOf(p.Host)}), mac)
	}
	if err != nil {
		s.Log.Debug("ask a host past the tunnel", "host", p.Host, "err", err)
	}
}

// open has the wire be where this host's tunnels begin.
func (s *Scout) open(e network.Errand) {
	on := place{e.Link, e.Addr.Is6()}
	s.mu.Lock()
	same := s.wire != nil && s.on == on && len(e.Targets) > 0
	s.mu.Unlock()
	if same {
		return
	}
	s.close()
	if e.Link == "" || len(e.Targets) == 0 {
		return
	}
	w, err := s.Open(on.link, on.v6, port)
	if err != nil {
		if s.failed != on {
			s.Log.Warn("look past the tunnels: it is tried again", "interface", e.Link, "err", err)
		}
		s.failed = on
		return
	}
	s.failed = place{}
	s.mu.Lock()
	s.wire, s.on = w, on
	s.mu.Unlock()
	s.served.Go(func() { s.serve(w) })
}

func (s *Scout) close() {
	s.mu.Lock()
	if s.wire != nil {
		_ = s.wire.Close()
	}
	s.wire = nil
	s.mu.Unlock()
	s.served.Wait()
}

// serve hears what comes until the wire ends: the next round opens another.
func (s *Scout) serve(w Wire) {
	for b := make([]byte, 2048); ; {
		n, from, err := w.Receive(b)
		if err != nil {
			s.mu.Lock()
			if s.wire == w {
				_ = w.Close()
				s.wire = nil
			}
			s.mu.Unlock()
			return
		}
		if got, ok := parse(b[:n]); ok {
			s.heard(w, got, from)
		}
	}
}

// heard answers who asks, if he is one that this host reaches or tries to.
func (s *Scout) heard(w Wire, got note, from netspec.MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[got.from]
	switch {
	case !ok || got.to != s.self:
	case got.kind == ask:
		if err := w.Send(packet(p.From, p.To, note{answer, got.number, s.self, got.from}), from); err != nil {
			s.Log.Debug("answer a host past the tunnel", "host", p.Host, "err", err)
		}
	case got.kind == answer && got.number == p.number && p.number != [8]byte{}:
		p.answered = true
		if !p.reached {
			p.reached = true
			s.notify()
		}
	}
}

func (s *Scout) notify() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// tell tells what has changed, and writes it down.
func (s *Scout) tell(tell func(host string, gets bool)) {
	now := map[string]bool{}
	s.mu.Lock()
	for _, p := range s.peers {
		if p.reached {
			now[p.Host] = true
		}
	}
	known := s.self != name{}
	s.mu.Unlock()
	if !known || maps.Equal(now, s.told) {
		return
	}
	before := s.told
	s.told = now
	s.keep()
	for host := range before {
		if !now[host] {
			tell(host, false)
		}
	}
	for host := range now {
		if !before[host] {
			tell(host, true)
		}
	}
}

func (s *Scout) keep() {
	if s.Path == "" {
		return
	}
	var b bytes.Buffer
	for _, h := range slices.Sorted(maps.Keys(s.told)) {
		b.WriteString(h + "\n")
	}
	err := os.WriteFile(s.Path+".new", b.Bytes(), 0o600)
	if err == nil {
		err = os.Rename(s.Path+".new", s.Path)
	}
	if err != nil {
		s.Log.Warn("write down which hosts are reached without a tunnel", "err", err)
	}
}
