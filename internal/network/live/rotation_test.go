package live_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/netspec"
	"isle/internal/network"
)

var secretWords = []byte("nobody on the wire reads these words")

// witness hears all that passes the links of a namespace.
type witness struct {
	heard, other atomic.Int64 // frames with the words, and without
}

func listenIn(t *testing.T, ns kerneltest.NS) *witness {
	t.Helper()
	w, fd := &witness{}, -1
	err := netns.Do(ns.File, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(unix.ETH_P_ALL<<8)); err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for b := make([]byte, 1<<16); !stop.Load(); {
			n, _, err := unix.Recvfrom(fd, b, 0)
			switch {
			case err != nil:
			case bytes.Contains(b[:n], secretWords):
				w.heard.Add(1)
			default:
				w.other.Add(1)
			}
		}
	})
	t.Cleanup(func() { stop.Store(true); done.Wait(); unix.Close(fd) })
	return w
}

// datagrams go from one container to another, numbered, about one each millisecond.
type datagrams struct {
	what string
	sent atomic.Uint64
	came atomic.Uint64
	stop context.CancelFunc
	done sync.WaitGroup
}

func number(t *testing.T, from *member, ns netspec.NS, to *member, at netip.AddrPort, there netspec.NS) *datagrams {
	t.Helper()
	var in net.PacketConn
	var out net.Conn
	must(t, to.kernel.Do(there, func() (err error) { in, err = net.ListenPacket("udp", at.String()); return err }))
	must(t, from.kernel.Do(ns, func() (err error) { out, err = net.Dial("udp", at.String()); return err }))
	must(t, in.(*net.UDPConn).SetReadBuffer(8<<20))
	ctx, cancel := context.WithCancel(context.Background())
	d := &datagrams{what: fmt.Sprint(ns, " to ", there), stop: cancel}
	d.done.Go(func() { d.send(ctx, out) })
	var receiving sync.WaitGroup
	receiving.Go(func() { d.receive(in) })
	t.Cleanup(func() { cancel(); d.done.Wait(); in.Close(); out.Close(); receiving.Wait() })
	return d
}

func (d *datagrams) send(ctx context.Context, out net.Conn) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := uint64(0); ctx.Err() == nil; i++ {
		if _, err := out.Write(binary.BigEndian.AppendUint64(bytes.Clone(secretWords), i)); err == nil {
			d.sent.Add(1)
		}
		<-tick.C
	}
}

func (d *datagrams) receive(in net.PacketConn) {
	seen := map[uint64]bool{}
	for b := make([]byte, 2000); ; {
		n, _, err := in.ReadFrom(b)
		if err != nil {
			return
		}
		if i := binary.BigEndian.Uint64(b[n-8 : n]); !seen[i] {
			seen[i] = true
			d.came.Add(1)
		}
	}
}

// lost is how many did not arrive, when no more are sent.
func (d *datagrams) lost() (lost, sent uint64) {
	d.stop()
	d.done.Wait()
	for end := time.Now().Add(5 * time.Second); d.came.Load() < d.sent.Load() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	return d.sent.Load() - d.came.Load(), d.sent.Load()
}

// echoes sends bytes by TCP until ctx ends, has them come back, and compares.
func echoes(ctx context.Context, t *testing.T, from *member, ns netspec.NS, to *member, at netip.AddrPort, there netspec.NS) (end func() (int64, error)) {
	t.Helper()
	l, err := to.kernel.ListenTCP(t.Context(), there, at)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	var c net.Conn
	must(t, from.kernel.Do(ns, func() (err error) { c, err = net.DialTimeout("tcp", at.String(), 10*time.Second); return err }))
	var total int64
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		defer c.Close()
		block := bytes.Repeat(secretWords, 400)
		for back := make([]byte, len(block)); ctx.Err() == nil && failed == nil; total += int64(len(block)) {
			_, werr := c.Write(block)
			_, rerr := io.ReadFull(c, back)
			if failed = errors.Join(werr, rerr); failed == nil && !bytes.Equal(block, back) {
				failed = errors.New("other bytes came back")
			}
		}
	})
	return func() (int64, error) { done.Wait(); return total, failed }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *member) key() network.KeyState {
	s, err := h.m.KeyState()
	must(h.t, err)
	return s
}

// rotated waits until hosts have new keys alone and everybody has them.
func rotated(t *testing.T, before map[*member]string, all []*member) {
	t.Helper()
	step := func(what string, is func(h *member) bool) {
		t.Helper()
		for h := range before {
			soon(t, what, func() bool { return is(h) })
		}
		time.Sleep(time.Second)
		for h := range before {
			h.later.Add(int64(time.Minute))
		}
	}
	step("the others come over", func(h *member) bool { s := h.key(); return s.Public != before[h] && s.Coming == 0 })
	step("the others are told of the new key alone", func(h *member) bool { return !told(h, all, before[h]) })
	step("the old key is forgotten", func(h *member) bool { return h.key().Old == "" })
}

// told reports whether somebody is told of a key of h.
func told(h *member, all []*member, key string) bool {
	for _, o := range all {
		host := o.dir.View().Hosts[h.dir.View().Self]
		if host.Key == key || host.OldKey == key {
			return true
		}
	}
	return false
}

// TestRotation: while hosts change their keys, one after the other and all at once, not a
// datagram of flows between containers is lost, and no frame is on the wire in the clear.
func TestRotation(t *testing.T) {
	_, all := gather(t, 3)
	a, b := all[0], all[1]
	_, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"encrypted": ""}})
	must(t, err)
	at := map[*member]netip.Addr{}
	for i, h := range all {
		soon(t, "the network is here", func() bool { return h.knows("app") && all[0].dir.View().Hosts[h.dir.View().Self].Key != "" })
		at[h] = h.open(h.m, fmt.Sprint("c", i), nil, "app").Endpoints[0].Addr(true)
	}
	soon(t, "all know each other's containers", func() bool { return len(a.behind())+len(b.behind())+len(all[2].behind()) == 6 })
	b.serve("c1", "0.0.0.0:80")
	across(t, "before", a, "c0", at[b], 80, at[a])
	w := listenIn(t, a.wire)
	var flows []*datagrams
	for i, h := range all {
		to := all[(i+1)%3]
		flows = append(flows, number(t, h, netspec.NS(fmt.Sprint("c", i)), to, netip.AddrPortFrom(at[to], 7000), netspec.NS(fmt.Sprint("c", (i+1)%3))),
			number(t, to, netspec.NS(fmt.Sprint("c", (i+1)%3)), h, netip.AddrPortFrom(at[h], 7001), netspec.NS(fmt.Sprint("c", i))))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	end := echoes(ctx, t, a, "c0", b, netip.AddrPortFrom(at[b], 7002), "c1")
	for _, who := range [][]*member{{a}, {a}, {b}, {a, b}, {a, b, all[2]}} {
		before := map[*member]string{}
		for _, h := range who {
			before[h] = h.key().Public
			must(t, h.m.RotateKey(t.Context()))
		}
		rotated(t, before, all)
	}
	cancel()
	if total, err := end(); err != nil || total < 1<<20 {
		t.Errorf("by TCP %d bytes went and came: %v", total, err)
	}
	for _, f := range flows {
		if lost, sent := f.lost(); lost > 0 || sent < 1000 {
			t.Errorf("%s: %d of %d datagrams were lost", f.what, lost, sent)
		} else {
			t.Logf("%s: %d datagrams", f.what, sent)
		}
	}
	if w.heard.Load() > 0 || w.other.Load() < 1000 {
		t.Errorf("%d frames were on the wire in the clear, and %d not", w.heard.Load(), w.other.Load())
	}
	for _, h := range all {
		links := 0
		for _, o := range observe(t, h.kernel) {
			if _, ok := o.(netspec.WireGuard); ok {
				links++
			}
		}
		if links != 1 {
			t.Errorf("a host has %d links that encrypt", links)
		}
	}
	a.ns.Do(func() error { // the witness is not deaf
		c, err := net.Dial("udp", "10.8.0.2:9")
		if err == nil {
			_, err = c.Write(secretWords)
		}
		return err
	})
	soon(t, "the witness hears what is in the clear", func() bool { return w.heard.Load() > 0 })
}

// TestEncryptedRestart: encrypted tunnels stay when isled ends, and go on when it is back,
// also where the other host alone has something to say. Without the kernel's WireGuard they
// pause meanwhile.
func TestEncryptedRestart(t *testing.T) {
	_, all := gather(t, 2)
	b, a := all[0], all[1] // of two hosts b shakes hands first
	_, err := b.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"encrypted": ""}})
	must(t, err)
	soon(t, "the network and the keys are known", func() bool {
		v := a.dir.View()
		return a.knows("app") && v.Hosts["a"].Key != "" && v.Hosts["b"].Key != ""
	})
	one := a.open(a.m, "one", nil, "app").Endpoints[0].Addr(true)
	b.open(b.m, "two", nil, "app")
	soon(t, "each knows the other's container", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 1 })
	w := listenIn(t, a.wire)
	f := number(t, b, "two", a, netip.AddrPortFrom(one, 7000), "one")
	soon(t, "frames arrive", func() bool { return f.came.Load() > 100 })
	links := func() (names string) {
		for _, l := range []string{"islew", "islex"} {
			names += a.ns.Run("sh", "-c", "ip -o link show | grep -o '^[0-9]*: "+l+"[^:]*'")
		}
		return names
	}
	for range 3 {
		before, came := links(), f.came.Load()
		a.die()
		if after := links(); after != before {
			t.Errorf("with isled links have gone: %s, before %s", after, before)
		}
		came = max(came, f.came.Load())
		start := time.Now()
		a.begin()
		soon(t, "frames arrive again", func() bool { return f.came.Load() > came+10 })
		took := time.Since(start)
		if t.Logf("frames arrive %d ms after the start", took.Milliseconds()); took > 10*time.Second {
			t.Error("the other host has to find out by itself that its session has ended, for which WireGuard needs 15 s")
		}
		if after := links(); after != before {
			t.Errorf("links were made anew: %s, before %s", after, before)
		}
	}
	if w.heard.Load() > 0 {
		t.Errorf("%d frames were on the wire in the clear", w.heard.Load())
	}
}
