package kernel

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

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
