package network_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// sealed is a cluster whose hosts can encrypt, with a clock of its own.
type sealed struct {
	all []*member
	at  time.Time
}

func gatherSealed(t testing.TB, n int) *sealed {
	t.Helper()
	s := &sealed{at: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	_, s.all = gather(t, n)
	for _, h := range s.all {
		s.equip(t, h)
	}
	hear(t, s.all)
	return s
}

// equip gives a host a key.
func (s *sealed) equip(t testing.TB, h *member) {
	h.seal = newSealer(h.id, func() time.Time { return s.at })
	h.machine.shaken = func(link string) map[string]time.Time { return s.shaken(h, link) }
	h.begin(t)
}

// linkOf is the link of a host's kernel with a key.
func linkOf(h *member, key string) (w netspec.WireGuard, ok bool) {
	for _, w := range of[netspec.WireGuard](h) {
		if w.Public == key {
			return w, true
		}
	}
	return w, false
}

// answers finds who is at the other end of a peer of h, and the peer that h is there:
// both must know each other. WireGuard shakes hands with who does.
func (s *sealed) answers(h *member, p netspec.Peer) (o *member, there netspec.Peer, ok bool) {
	mine, _ := h.kernel.State[netspec.WireGuard{Name: p.Link}.Key()].(netspec.WireGuard)
	for _, o := range s.all {
		if w, ok := linkOf(o, p.Public); ok && w.Port == p.At.Port() {
			there, ok := o.kernel.State[netspec.Peer{Link: w.Name, Public: mine.Public}.Key()].(netspec.Peer)
			return o, there, ok
		}
	}
	return nil, there, false
}

func (s *sealed) shaken(h *member, link string) map[string]time.Time {
	out := map[string]time.Time{}
	for _, p := range of[netspec.Peer](h) {
		if _, _, ok := s.answers(h, p); ok && p.Link == link {
			out[p.Public] = s.at
		}
	}
	return out
}

// arrives reports why a frame that h sends by a link to an end of a tunnel is not taken
// there, or is sent where nothing encrypts it.
func (s *sealed) arrives(h *member, tunnel, link string, dst netip.Addr) error {
	v, ok := h.kernel.State[netspec.VXLAN{Name: tunnel}.Key()].(netspec.VXLAN)
	if !ok {
		return fmt.Errorf("there is no tunnel %s", tunnel)
	}
	for _, p := range of[netspec.Peer](h) {
		if p.Link != link || p.Allowed != dst {
			continue
		}
		o, there, ok := s.answers(h, p)
		if !ok {
			return fmt.Errorf("nobody answers at %v", p)
		}
		if from := (netspec.Addr{Link: link, Prefix: netip.PrefixFrom(there.Allowed, 128)}); h.kernel.State[from.Key()] != from {
			return fmt.Errorf("it would be from %s, and %s is not there", there.Allowed, from.Prefix)
		}
		guard := netspec.Tunnel{Port: v.Port, Via: there.Link}
		if o.kernel.State[guard.Key()] != guard {
			return fmt.Errorf("host %s does not take it: it has no %v", o.id, guard)
		}
		return nil
	}
	return fmt.Errorf("%s by %q is no key's", dst, link)
}

// delivers checks that frames to every station, and copies, are taken at the other end.
func (s *sealed) delivers(t *testing.T, when string) (ways int) {
	t.Helper()
	for _, h := range s.all {
		for _, f := range of[netspec.FDB](h) {
			if err := s.arrives(h, f.Link, f.Via, f.Dst); err != nil {
				t.Fatalf("%s: host %s sends frames for %x nowhere: %v", when, h.id, f.MAC, err)
			}
			ways++
		}
		for _, f := range of[netspec.Flood](h) {
			if err := s.arrives(h, f.Link, f.Via, f.Dst); err != nil {
				t.Fatalf("%s: host %s sends copies nowhere: %v", when, h.id, err)
			}
		}
	}
	return ways
}

// pass lets time go by, for all that have heard everything.
func (s *sealed) pass(t *testing.T, d time.Duration) {
	hear(t, s.all)
	s.at = s.at.Add(d)
	for _, h := range s.all {
		must(t, h.m.Rotate(t.Context()))
	}
	hear(t, s.all)
}

func (s *sealed) encrypted(t *testing.T) {
	t.Helper()
	create(t, s.all[0].m, api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"encrypted": ""}})
	hear(t, s.all)
	for _, h := range s.all {
		open(t, h.m, "c"+h.id, "app")
	}
	rightAll(t, s.all)
}

// TestRotation: what is there of a rotation, step by step.
func TestRotation(t *testing.T) {
	s := gatherSealed(t, 3)
	s.encrypted(t)
	a, b := s.all[0], s.all[1]
	before := b.seal.public()
	if err := b.m.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.m.RotateKey(t.Context()); !errdefs.IsConflict(err) {
		t.Errorf("a third key: %v", err)
	}
	keys := func() (old string, links int) {
		return s.all[2].dir.View().Hosts["b"].OldKey, len(of[netspec.WireGuard](b))
	}
	hear(t, s.all)
	if old, links := keys(); old != before || links != 2 || len(of[netspec.Peer](a)) != 3 {
		t.Errorf("the others know of the old key %q; %d links; %v", old, links, of[netspec.Peer](a))
	}
	wayTo := func() netip.Addr {
		for _, f := range of[netspec.Flood](a) {
			for _, k := range b.seal.keys {
				if f.Dst == network.SealedAddr("b", k.Public) {
					return f.Dst
				}
			}
		}
		return netip.Addr{}
	}
	if wayTo() != network.SealedAddr("b", before) {
		t.Error("frames take a way that was not seen to be open")
	}
	s.pass(t, time.Second)
	if state, err := b.m.KeyState(); err != nil || wayTo() != network.SealedAddr("b", b.seal.public()) || state.Coming != 0 || state.Old != before {
		t.Errorf("frames do not take the new way: %+v, %v", state, err)
	}
	s.pass(t, 5*time.Second)
	if old, links := keys(); old != "" || links != 2 {
		t.Errorf("the others still know of %q; %d links", old, links)
	}
	s.pass(t, 5*time.Second)
	if state, err := b.m.KeyState(); err != nil || len(of[netspec.WireGuard](b)) != 1 || len(of[netspec.Peer](a)) != 2 || state.Old != "" || len(b.seal.keys) != 1 || state.Port != 51872 {
		t.Errorf("the old key is not forgotten: %+v %v", state, err)
	}
	s.delivers(t, "in the end")
	rightAll(t, s.all)
}

// TestRotationRefused: a key whose link the kernel does not make is taken back.
func TestRotationRefused(t *testing.T) {
	s := gatherSealed(t, 2)
	s.encrypted(t)
	a := s.all[0]
	before := a.seal.public()
	a.kernel.Refuses = func(c reconcile.Change) bool { w, ok := c.New.(netspec.WireGuard); return ok && w.Public != before }
	if err := a.m.RotateKey(t.Context()); !errors.Is(err, kerneltest.ErrRefused) {
		t.Errorf("what the kernel refuses is no matter: %v", err)
	}
	a.kernel.Refuses = nil
	if len(a.seal.keys) != 1 || a.seal.public() != before {
		t.Errorf("the key is not taken back: %v", a.seal.keys)
	}
	must(t, a.m.Sync(t.Context()))
	s.delivers(t, "as before")
	rightAll(t, s.all)
	if err := a.m.RotateKey(t.Context()); err != nil {
		t.Errorf("it cannot be tried again: %v", err)
	}
}

// TestRotationAge: keys change by themselves, each in its time, and none at all where
// that is not wanted.
func TestRotationAge(t *testing.T) {
	s := gatherSealed(t, 3)
	for _, h := range s.all {
		h.life = 30 * 24 * time.Hour
		h.begin(t)
	}
	s.all[2].life = 0
	s.all[2].begin(t)
	hear(t, s.all)
	changed := map[*member]int{}
	for day := range 31 {
		for range 12 {
			s.pass(t, 2*time.Hour)
		}
		for _, h := range s.all {
			if h.seal.made > 1 && changed[h] == 0 {
				changed[h] = day
			}
		}
	}
	a, b, c := s.all[0], s.all[1], s.all[2]
	if a.seal.made != 2 || b.seal.made != 2 || changed[a] < 22 || changed[b] < 22 {
		t.Errorf("keys changed on days %d and %d, %d and %d were made", changed[a], changed[b], a.seal.made, b.seal.made)
	}
	if c.seal.made != 1 {
		t.Error("a key changed whose life has no end")
	}
}

// TestRotationAnyOrder: in whatever order hosts go on with rotations and hear of those of
// others, and wherever their processes die, frames are taken at the other end after every
// single step.
func TestRotationAnyOrder(t *testing.T) {
	made, crashes, ways := 0, 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := gatherSealed(t, 3)
		s.encrypted(t)
		for i := range 150 {
			h := s.all[r.IntN(len(s.all))]
			what, crashed := s.step(t, r, h)
			if crashed {
				crashes++
			}
			ways += s.delivers(t, fmt.Sprintf("seed %d step %d: %s on host %s, crash %t", seed, i, what, h.id, crashed))
		}
		for range 12 {
			s.pass(t, 10*time.Second)
		}
		rightAll(t, s.all)
		for _, h := range s.all {
			if made += h.seal.made; len(h.seal.keys) != 1 || len(of[netspec.WireGuard](h)) != 1 {
				t.Errorf("seed %d: host %s has keys %v in the end", seed, h.id, h.seal.keys)
			}
			h.feed.Close()
		}
	}
	t.Logf("%d keys, %d crashes, %d ways", made, crashes, ways)
	if made < 300 || crashes < 50 || ways < 10000 {
		t.Error("the lives do not go everywhere")
	}
}

// step is one act of a host, in which its process may die.
func (s *sealed) step(t *testing.T, r *rand.Rand, h *member) (what string, crashed bool) {
	h.kernel.N = 0
	if r.IntN(4) == 0 {
		h.kernel.CrashAt = 1 + r.IntN(12)
	}
	defer func() {
		h.kernel.CrashAt = 0
		if r := recover(); r != nil {
			if r != kerneltest.ErrCrash {
				panic(r)
			}
			crashed = true
			h.begin(t)
		}
	}()
	switch r.IntN(10) {
	case 0:
		if err := h.m.RotateKey(t.Context()); err != nil && !errdefs.IsConflict(err) {
			t.Error(err)
		}
		return "rotate", false
	case 1, 2, 3:
		must(t, h.m.Rotate(t.Context()))
		return "go on", false
	case 4, 5:
		if ch, ok := h.feed.Next(); ok {
			h.m.Heard(t.Context(), ch)
		}
		return "hear", false
	case 6:
		must(t, h.m.Restore(t.Context()))
		return "tell", false
	case 7:
		h.begin(t)
		return "restart", false
	}
	if !slices.ContainsFunc(s.all, func(h *member) bool { return h.feed.Pending() }) {
		s.at = s.at.Add(5 * time.Second)
	}
	return "wait", false
}
