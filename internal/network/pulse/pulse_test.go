package pulse

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isle/internal/netspec"
)

// air is what is between hosts: by each link one.
type air struct {
	mu    sync.Mutex
	ends  map[netspec.MAC]*fakeWire
	sent  map[netspec.MAC]int // frames by each
	delay time.Duration
	// pass is what becomes of a frame; nil: it is lost.
	pass func(from, to string, b []byte) []byte
	name map[netspec.MAC]string
}

type fakeWire struct {
	a    *air
	mac  netspec.MAC
	in   chan []byte
	once sync.Once
	gone chan struct{}
	hear func([]byte) // instead of in
}

var errClosed = errors.New("closed")

func (w *fakeWire) Send(b []byte, start, offset uint16) error {
	b = append([]byte(nil), b...)
	at := int(start + offset)
	be.PutUint16(b[at:], ^sum(0, b[start:]))
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	w.a.sent[w.mac]++
	to := w.a.ends[netspec.MAC(b[:6])]
	if to == nil {
		return nil
	}
	if b = w.a.pass(w.a.name[w.mac], w.a.name[to.mac], b); b == nil {
		return nil
	}
	time.AfterFunc(w.a.delay, func() {
		if to.hear != nil {
			to.hear(b)
			return
		}
		select {
		case to.in <- b:
		case <-to.gone:
		}
	})
	return nil
}

func (w *fakeWire) Receive(b []byte) (int, bool, error) {
	select {
	case f := <-w.in:
		return copy(b, f), true, nil
	case <-w.gone:
		return 0, false, errClosed
	}
}

func (w *fakeWire) Close() error { w.once.Do(func() { close(w.gone) }); return nil }

func newAir() *air {
	return &air{ends: map[netspec.MAC]*fakeWire{}, sent: map[netspec.MAC]int{}, name: map[netspec.MAC]string{}, delay: time.Millisecond,
		pass: func(_, _ string, b []byte) []byte { return b }}
}

// host is a Prober that runs on it, as long as the test.
type host struct {
	*Prober
	id string
	mu sync.Mutex
	by []string // what was told
}

func (a *air) host(t *testing.T, id string) *host {
	h := &host{id: id}
	h.Prober = &Prober{Log: slog.New(slog.DiscardHandler), Open: func(string) (Wire, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		w := &fakeWire{a: a, mac: MAC(id), in: make(chan []byte, 4096), gone: make(chan struct{})}
		a.ends[w.mac], a.name[w.mac] = w, id
		return w, nil
	}, Tell: func(r Report) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.by = append(h.by, fmt.Sprintf("%s: %s %s", r.Peer.Name, r.State, r.Problem()))
	}}
	go h.Run(t.Context())
	return h
}

const way0 = "UDP port 4789"

func (h *host) sees(mtu int, near bool, others ...string) {
	w := Way{Name: way0, Link: "islep4789", Self: h.id, MTU: mtu}
	for _, o := range others {
		w.Peers = append(w.Peers, Peer{ID: o, Name: o, Addr: netip.MustParseAddr("192.0.2.1"), Near: near})
	}
	h.Set([]Way{w})
}

func (h *host) contact(id string) Contact {
	c, _ := h.Contact(way0, id)
	return c
}

// two hosts see each other.
func two(t *testing.T, a *air, mtu int) (x, y *host) {
	x, y = a.host(t, "x"), a.host(t, "y")
	x.sees(mtu, true, "y")
	y.sees(mtu, true, "x")
	return x, y
}

func (h *host) is(t *testing.T, when string, want Contact, id string) {
	t.Helper()
	got := h.contact(id)
	if want.Last, want.Tried = got.Last, got.Tried; got != want {
		t.Errorf("%s: %s sees %s as %+v, want %+v", when, h.id, id, got, want)
	}
}

func (h *host) told(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.by {
		if strings.Contains(s, what) {
			return true
		}
	}
	return false
}

const mtu = 1450

var healthy = Contact{State: Up, MTU: mtu}

func TestUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir()
		x, y := two(t, a, mtu)
		x.is(t, "at first", Contact{State: Unknown, MTU: mtu}, "y")
		time.Sleep(2 * time.Second)
		x.is(t, "later", healthy, "y")
		y.is(t, "later", healthy, "x")
		time.Sleep(time.Minute)
		if ago := time.Since(x.contact("y").Last); ago > nearEvery+time.Second {
			t.Errorf("the last contact is %v ago", ago)
		}
	})
}

// TestBlackHole: whatever the size, and in whichever direction, it is found to the byte,
// by both ends; and seen when it is gone.
func TestBlackHole(t *testing.T) {
	for _, fits := range []int{small, small + 1, 576, 1279, 1280, 1400, mtu - 2, mtu - 1} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir()
			a.pass = func(from, _ string, b []byte) []byte {
				if from == "x" && len(b)-ethernetLen > fits {
					return nil
				}
				return b
			}
			x, y := two(t, a, mtu)
			time.Sleep(15 * time.Second)
			x.is(t, "narrow", Contact{State: Narrow, MTU: mtu, Fit: fits, There: true}, "y")
			y.is(t, "narrow", Contact{State: Narrow, MTU: mtu, Fit: fits, Back: true}, "x")
			if !x.told(fmt.Sprintf("more than %d bytes", fits)) {
				t.Errorf("told: %q", x.by)
			}
			a.mu.Lock()
			a.pass = func(_, _ string, b []byte) []byte { return b }
			a.mu.Unlock()
			time.Sleep(wholeSoon + nearEvery + 2*time.Second)
			x.is(t, "repaired", healthy, "y")
			time.Sleep(nearEvery)
			y.is(t, "repaired", healthy, "x")
		})
	}
}

// TestMTU: what an interface takes has changed.
func TestMTUChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir()
		a.pass = func(_, _ string, b []byte) []byte {
			if len(b)-ethernetLen > 1380 {
				return nil
			}
			return b
		}
		x, _ := two(t, a, 1380)
		time.Sleep(2 * time.Second)
		x.is(t, "at first", Contact{State: Up, MTU: 1380}, "y")
		x.sees(1450, true, "y")
		time.Sleep(10 * time.Second)
		x.is(t, "with a larger one", Contact{State: Narrow, MTU: 1450, Fit: 1380, There: true}, "y")
		x.sees(1380, true, "y")
		time.Sleep(2 * time.Second)
		x.is(t, "with the old one", Contact{State: Up, MTU: 1380}, "y")
	})
}

// TestLoss: a way that loses frames now and then is none that loses large ones.
func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, n := newAir(), 0
		a.pass = func(_, _ string, b []byte) []byte {
			if n++; n%5 == 0 {
				return nil
			}
			return b
		}
		x, y := two(t, a, mtu)
		time.Sleep(time.Hour)
		x.is(t, "lossy", healthy, "y")
		y.is(t, "lossy", healthy, "x")
		for _, h := range []*host{x, y} {
			if h.told("black hole") || h.told("answer") {
				t.Errorf("told: %q", h.by)
			}
		}
	})
}

// TestCorrupt: wrong checksums are told apart from loss, by both ends, whether it is what
// goes there or what comes back, and whether the frame or the checksum alone is wrong.
func TestCorrupt(t *testing.T) {
	for what, spoil := range map[string]func(b []byte){
		"checksum": func(b []byte) { b[sumStart+sumOffset] ^= 0x55 },
		"padding":  func(b []byte) { b[len(b)-1] ^= 1 },
		"nonce":    func(b []byte) { b[sumStart+udpLen+12] ^= 1 },
		"magic":    func(b []byte) { b[sumStart+udpLen] ^= 1 },
		"kind":     func(b []byte) { b[sumStart+udpLen+5] ^= 7 },
		"of large ones": func(b []byte) {
			if len(b) > 1000 {
				b[900] ^= 1
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir()
			a.pass = func(from, _ string, b []byte) []byte {
				if from == "x" {
					spoil(b)
				}
				return b
			}
			x, y := two(t, a, mtu)
			time.Sleep(20 * time.Second)
			x.is(t, what, Contact{State: Corrupt, MTU: mtu, There: true}, "y")
			y.is(t, what, Contact{State: Corrupt, MTU: mtu, Back: true}, "x")
			if !x.told("wrong checksums") {
				t.Errorf("%s: told: %q", what, x.by)
			}
			a.mu.Lock()
			a.pass = func(_, _ string, b []byte) []byte { return b }
			a.mu.Unlock()
			time.Sleep(wholeSoon + 2*nearEvery + 10*time.Second)
			x.is(t, what+", repaired", healthy, "y")
			y.is(t, what+", repaired", healthy, "x")
		})
	}
}

// TestDown: a host that dies is down, and its last contact stands still; one of which
// frames arrive, but not the other way, is told apart; one that is no more of the cluster
// is not there.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir()
		x, y := two(t, a, mtu)
		time.Sleep(time.Minute)
		died := time.Now()
		a.mu.Lock()
		a.pass = func(_, _ string, _ []byte) []byte { return nil }
		a.mu.Unlock()
		time.Sleep(time.Minute)
		x.is(t, "dead", Contact{State: Down, MTU: mtu, There: true, Back: true}, "y")
		if last := x.contact("y").Last; last.After(died) || died.Sub(last) > nearEvery+time.Second {
			t.Errorf("the last contact is %v after it died", last.Sub(died))
		}
		a.mu.Lock()
		a.pass = func(from, _ string, b []byte) []byte {
			if from == "x" {
				return nil
			}
			return b
		}
		a.mu.Unlock()
		time.Sleep(time.Minute)
		x.is(t, "one direction", Contact{State: Down, MTU: mtu, There: true}, "y")
		a.mu.Lock()
		a.pass = func(_, _ string, b []byte) []byte { return b }
		a.mu.Unlock()
		time.Sleep(10 * time.Second)
		x.is(t, "back", healthy, "y")
		y.is(t, "back", healthy, "x")
		x.sees(mtu, true)
		if _, ok := x.Contact(way0, "y"); ok {
			t.Error("a host that is no more of the cluster is there")
		}
	})
}

// TestBack: who was silent is seen at once when it is heard again, also by those that have
// no network with it; and soon when it was the way.
func TestBack(t *testing.T) {
	for _, restarts := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a := newAir()
			x, y := a.host(t, "x"), a.host(t, "y")
			x.sees(mtu, false, "y")
			y.sees(mtu, false, "x")
			time.Sleep(time.Minute)
			a.mu.Lock()
			a.pass = func(_, _ string, _ []byte) []byte { return nil }
			a.mu.Unlock()
			time.Sleep(5 * time.Minute)
			x.is(t, "away", Contact{State: Down, MTU: mtu, There: true, Back: true}, "y")
			a.mu.Lock()
			a.pass = func(_, _ string, b []byte) []byte { return b }
			a.mu.Unlock()
			if restarts {
				y.sees(mtu, false)
				y.sees(mtu, false, "x")
				time.Sleep(3 * time.Second)
			} else {
				time.Sleep(lostEvery + 3*time.Second)
			}
			x.is(t, "back", healthy, "y")
			y.is(t, "back", healthy, "x")
		})
	}
}

// TestStrangers: frames of who is not known, or not who it says, are not heard.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir()
		x := a.host(t, "x")
		z := a.host(t, "z")
		x.sees(mtu, true, "y")
		z.sees(mtu, true, "x")
		time.Sleep(time.Minute)
		z.is(t, "stranger", Contact{State: Down, MTU: mtu, There: true, Back: true}, "x")
		x.is(t, "silent", Contact{State: Down, MTU: mtu, There: true, Back: true}, "y")
		a.mu.Lock()
		to := a.ends[MAC("x")]
		before := a.sent[MAC("x")]
		a.mu.Unlock()
		liar := endOf("z")
		liar.mac = MAC("y")
		b := message{kind: ask}.encode(liar, endOf("x"), small)
		be.PutUint16(b[sumStart+sumOffset:], ^sum(0, b[sumStart:]))
		to.in <- b
		synctest.Wait()
		x.is(t, "a liar", Contact{State: Down, MTU: mtu, There: true, Back: true}, "y")
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.sent[MAC("x")] != before {
			t.Error("a liar is answered")
		}
	})
}

// TestFlood: who asks and asks is answered now and then.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAir()
		x := a.host(t, "x")
		x.sees(mtu, true, "y")
		time.Sleep(time.Second)
		w := &fakeWire{a: a, mac: MAC("y"), in: make(chan []byte, 1<<16), gone: make(chan struct{})}
		a.mu.Lock()
		a.ends[w.mac], a.name[w.mac] = w, "y"
		before := a.sent[MAC("x")]
		a.mu.Unlock()
		const seconds = 10
		for i := range seconds * 1000 {
			_ = w.Send(message{kind: ask, nonce: uint64(i)}.encode(endOf("y"), endOf("x"), mtu), sumStart, sumOffset)
			time.Sleep(time.Millisecond)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if got := a.sent[MAC("x")] - before; got < answerRate*seconds || got > answerRate*seconds+answerBurst+Burst {
			t.Errorf("%d frames for 10,000 that asked", got)
		}
	})
}

// TestThousand: among 1,000 hosts one sends what it may, and knows of all of them; also
// when all have a network with it, and when all ways are black holes.
func TestThousand(t *testing.T) {
	for _, c := range []struct {
		name string
		near bool
		fits int
	}{{"far", false, mtu}, {"near", true, mtu}, {"narrow", true, 1400}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAir()
				x, others := a.host(t, "x"), []string(nil)
				for i := range 1000 {
					id := fmt.Sprint("h", i)
					others = append(others, id)
					a.echo(id)
				}
				a.pass = func(_, _ string, b []byte) []byte {
					if len(b)-ethernetLen > c.fits {
						return nil
					}
					return b
				}
				x.sees(mtu, c.near, others...)
				const minutes = 6
				time.Sleep(minutes * time.Minute)
				for _, id := range others {
					if got := x.contact(id); got.State != Up && got.Fit != c.fits || got.State == Up && c.fits < mtu {
						t.Fatalf("%s is %+v", id, got)
					}
				}
				a.mu.Lock()
				defer a.mu.Unlock()
				got := a.sent[MAC("x")] / (minutes * 60)
				t.Logf("%d frames a second", got)
				if got > Rate+1 {
					t.Errorf("it sends %d frames a second", got)
				}
			})
		})
	}
}

// echo is a host that answers and does not ask.
func (a *air) echo(id string) {
	w := &fakeWire{a: a, mac: MAC(id)}
	w.hear = func(b []byte) {
		e, ok := open(b)
		m, known, intact := read(b, true)
		if ok && known && intact && m.kind == ask {
			_ = w.Send(message{kind: answer, nonce: m.nonce}.encode(e.to, e.from, small), sumStart, sumOffset)
		}
	}
	a.ends[w.mac], a.name[w.mac] = w, id
}
