package kernel

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// keyOf is the WireGuard key of host i.
func keyOf(t testing.TB, i int) (public string, private [32]byte) {
	t.Helper()
	private[0], private[31] = byte(i)<<3, 0x40
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()), private
}

func sealedAt(i int) netip.Addr { return ip(fmt.Sprintf("fd69:736c:6500::%d", i)) }

// sealed are host i's parts of an encrypted tunnel, of which the other end is host peer.
func sealed(t testing.TB, i, peer int) netspec.State {
	t.Helper()
	mine, _ := keyOf(t, i)
	theirs, _ := keyOf(t, peer)
	return state(
		netspec.WireGuard{Name: "isw0", Public: mine, Port: 51871, MTU: 1440},
		netspec.Addr{Link: "isw0", Prefix: netip.PrefixFrom(sealedAt(i), 128)},
		netspec.Route{Dst: pfx("fd69:736c:6500::/48"), Dev: "isw0"},
		netspec.Peer{Link: "isw0", Public: theirs, At: netip.AddrPortFrom(ip(fmt.Sprintf("10.8.0.%d", peer)), 51871), Allowed: sealedAt(peer)},
		netspec.VXLAN{Name: "isx1", VNI: 4711, Local: sealedAt(i), Port: 4790, Via: "isw0", MTU: 1370, Master: "isbr1"},
		netspec.Tunnel{Port: 4790, Via: "isw0"})
}

func withKey(t testing.TB, i int, user bool) option {
	return func(c *Config) {
		_, private := keyOf(t, i)
		c.Secret, c.UserWireGuard = func(string) ([32]byte, error) { return private, nil }, user
	}
}

// eavesdropper hears all that passes the links of a namespace.
type eavesdropper struct {
	words        []byte
	heard, other atomic.Int64 // frames with the words, and without
}

func listenIn(t *testing.T, ns kerneltest.NS, words []byte) *eavesdropper {
	t.Helper()
	e, fd := &eavesdropper{words: words}, -1
	err := netns.Do(ns.File, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(be16(unix.ETH_P_ALL))); err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<16); !stop.Load(); {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue
			}
			if bytes.Contains(b[:n], e.words) {
				e.heard.Add(1)
			} else {
				e.other.Add(1)
			}
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-done; unix.Close(fd) })
	return e
}

var secretWords = []byte("nobody on the underlay reads these words")

// TestSealed (CVE-2023-28841): what containers on two hosts say to each other is on the wire, and not in
// the clear; not while the tunnel is set up, and not when what encrypts it is gone.
func TestSealed(t *testing.T) {
	t.Parallel()
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprint("CVE-2023-28841, user=", user), func(t *testing.T) { testSealed(t, user) })
	}
}

func testSealed(t *testing.T, user bool) {
	a, b := newMachine(t, withKey(t, 1, user)), newMachine(t, withKey(t, 2, user))
	wire := underlay(t, a, b)
	e := listenIn(t, wire, secretWords)
	for i, m := range []*machine{a, b} {
		c, _ := container(1, i+1)
		m.apply(merge(bridge(1, netspec.Segment{}), c))
		s := merge(sealed(t, i+1, 2-i), state(netspec.Flood{Link: "isx1", Dst: sealedAt(2 - i)}))
		for _, o := range station(2-i, sealedAt(2-i).String()) {
			s.Add(o)
		}
		err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, s))
		if probe.NotSupported(err) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if missing := s.Without(m.observe()); len(missing) > 0 {
			t.Errorf("it does not read back:\n%s", reconcile.Dump(missing))
		}
	}
	theirs, _ := keyOf(t, 2)
	a.say(b, "c1-1", "c1-2", "10.1.0.3:7777")
	if shaken, err := a.Handshakes(t.Context(), "isw0"); err != nil || time.Since(shaken[theirs]) > time.Hour {
		t.Errorf("the last handshake was at %s, %v", shaken[theirs], err)
	}
	if e.heard.Load() > 0 {
		t.Errorf("the words passed the wire in the clear %d times", e.heard.Load())
	}
	if e.other.Load() < 10 {
		t.Errorf("only %d frames passed the wire", e.other.Load())
	}
	a.host.Run("ip", "route", "add", "default", "via", "10.8.0.2") // where it would go without what encrypts
	a.host.Run("ip", "route", "add", "default", "via", "fd00:8::2")
	a.shout("c1-1", "10.1.0.3:7777")
	a.host.IP("link del isw0")
	a.shout("c1-1", "10.1.0.3:7777")
	time.Sleep(100 * time.Millisecond)
	if e.heard.Load() > 0 {
		t.Errorf("without its link %d frames passed in the clear", e.heard.Load())
	}
	a.host.Do(func() error { return send("10.8.0.2:9", secretWords) })
	for try := 0; e.heard.Load() == 0; try++ {
		if try == 500 {
			t.Fatal("the eavesdropper is deaf")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSealedWays: a tunnel has two links that encrypt, and each station the one that it is
// behind. One takes the other's place under a station without the tunnel being made anew;
// and when the link of a station is gone, what is sent to it goes nowhere.
func TestSealedWays(t *testing.T) {
	t.Parallel()
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprint("user=", user), func(t *testing.T) { testSealedWays(t, user) })
	}
}

func testSealedWays(t *testing.T, user bool) {
	keys := func(c *Config) {
		c.UserWireGuard = user
		c.Secret = func(public string) (private [32]byte, err error) {
			for i := 1; i <= 3; i++ {
				if p, secret := keyOf(t, i); p == public {
					return secret, nil
				}
			}
			return private, errdefs.ErrNotFound
		}
	}
	a, b := newMachine(t, keys), newMachine(t, keys)
	wire := underlay(t, a, b)
	e := listenIn(t, wire, secretWords)
	key := func(i int) string { public, _ := keyOf(t, i); return public }
	// Host a has keys 1 and 3, host b has key 2.
	link := func(name string, i int, port uint16) netspec.State {
		return state(netspec.WireGuard{Name: name, Public: key(i), Port: port, MTU: 1440},
			netspec.Addr{Link: name, Prefix: netip.PrefixFrom(sealedAt(i), 128)},
			netspec.Route{Dst: pfx("fd69:736c:6500::/48"), Dev: name, Src: sealedAt(i), Metric: i})
	}
	peer := func(name string, i, host int, port uint16) netspec.Peer {
		return netspec.Peer{Link: name, Public: key(i), At: netip.AddrPortFrom(ip(fmt.Sprintf("10.8.0.%d", host)), port), Allowed: sealedAt(i), Awake: host == 2}
	}
	tunnel := func(via ...string) netspec.State {
		s := state(netspec.VXLAN{Name: "isx1", VNI: 4711, Port: 4790, Via: via[0], MTU: 1370, Master: "isbr1"})
		for _, v := range via {
			s.Add(netspec.Tunnel{Port: 4790, Via: v})
		}
		return s
	}
	behind := func(i, at int, via string) netspec.State {
		s := state(netspec.Flood{Link: "isx1", Dst: sealedAt(at), Via: via})
		for _, o := range station(i, sealedAt(at).String()) {
			if f, ok := o.(netspec.FDB); ok {
				f.Via = via
				o = f
			}
			s.Add(o)
		}
		return s
	}
	two := merge(link("isw0", 1, 51871), link("isw1", 3, 51872), state(peer("isw0", 2, 2, 51871), peer("isw1", 2, 2, 51871)), tunnel("isw1", "isw0"))
	c1, _ := container(1, 1)
	c2, _ := container(1, 2)
	first, second := merge(bridge(1, netspec.Segment{}), c1, two, behind(2, 2, "isw0")), merge(bridge(1, netspec.Segment{}), c1, two, behind(2, 2, "isw1"))
	base := merge(bridge(1, netspec.Segment{}), c2, link("isw0", 2, 51871), state(peer("isw0", 1, 1, 51871), peer("isw0", 3, 1, 51872)), tunnel("isw0"))
	there, moved := merge(base, behind(1, 1, "isw0")), merge(base, behind(1, 3, "isw0"))
	for i, m := range []*machine{b, a} { // who shakes hands first comes last
		s := []netspec.State{there, first}[i]
		err := reconcile.Apply(t.Context(), m.Kernel, reconcile.Diff(nil, s))
		if probe.NotSupported(err) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		m.is(s)
	}
	a.say(b, "c1-1", "c1-2", "10.1.0.3:7777")
	number := func() string { n, _, _ := strings.Cut(a.host.Run("ip", "-o", "link", "show", "isx1"), ":"); return n }
	index := number()
	a.change(first, merge(second, link("isw0", 1, 51871)))
	a.is(second)
	a.say(b, "c1-1", "c1-2", "10.1.0.3:7777")
	old := merge(first)
	old[netspec.VXLAN{Name: "isx1"}.Key()] = tunnel("isw0")[netspec.VXLAN{Name: "isx1"}.Key()]
	a.change(second, old) // back, with the tunnel bound to the other link
	a.is(old)
	a.say(b, "c1-1", "c1-2", "10.1.0.3:7777")
	a.change(old, first)
	if now := number(); now != index {
		t.Errorf("the tunnel was made anew: link %s, before %s", now, index)
	}
	a.host.Run("ip", "route", "add", "default", "via", "10.8.0.2") // where it would go without what encrypts
	a.host.Run("ip", "route", "add", "default", "via", "fd00:8::2")
	a.host.IP("link del isw0")
	a.shout("c1-1", "10.1.0.3:7777")
	time.Sleep(100 * time.Millisecond)
	if e.heard.Load() > 0 || e.other.Load() < 10 {
		t.Errorf("%d frames passed in the clear, %d not", e.heard.Load(), e.other.Load())
	}
	if _, err := reconcile.Sync(t.Context(), a.Kernel, first); err != nil {
		t.Fatal(err)
	}
	a.is(first)
	a.change(first, second)
	b.change(there, moved)
	a.change(second, merge(bridge(1, netspec.Segment{}), c1, link("isw1", 3, 51872), state(peer("isw1", 2, 2, 51871)), tunnel("isw1"), behind(2, 2, "isw1")))
	a.say(b, "c1-1", "c1-2", "10.1.0.3:7777")
	if e.heard.Load() > 0 {
		t.Errorf("%d frames passed in the clear", e.heard.Load())
	}
}

// say sends the words by TCP, and has them acknowledged.
func (m *machine) say(to *machine, from, ns netspec.NS, at string) {
	m.t.Helper()
	l, err := to.ListenTCP(m.t.Context(), ns, netip.MustParseAddrPort(at))
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b := make([]byte, len(secretWords))
		_, _ = c.Read(b)
		_, _ = c.Write(b)
		c.Close()
	}()
	m.in(from).Do(func() error { return repeated(at, secretWords) })
}

// repeated sends words by TCP and reads them back.
func repeated(at string, words []byte) error {
	c, err := net.DialTimeout("tcp", at, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(words); err != nil {
		return err
	}
	b := make([]byte, len(words))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if !bytes.Equal(b, words) {
		return fmt.Errorf("%q came back", b)
	}
	return nil
}

// send sends words by UDP.
func send(at string, words []byte) error {
	c, err := net.Dial("udp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(words)
	return err
}

// shout sends the words by UDP, whoever hears them.
func (m *machine) shout(from netspec.NS, at string) {
	m.in(from).Do(func() error {
		for range 20 {
			_ = send(at, secretWords) // where there is no way, so much the better
		}
		return nil
	})
}
