package wg

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// User is a WireGuard link in this process. Its methods may be called by several
// goroutines.
type User struct {
	dev   *device.Device
	wakes time.Time // until when peers that are added are awake at first

	mu  sync.Mutex
	now Device
}

// NewUser makes a link with its device, in the calling thread's namespace. It is not up
// yet. One that resumes is there: a process before this one has left it. Its sessions have
// ended, which its peers do not know, so it shakes hands with them at once.
func NewUser(link string, mtu int, resumes bool) (*User, error) {
	t, err := tun.CreateTUN(link, mtu)
	if err == nil {
		err = stay(t.File())
	}
	if err != nil {
		return nil, fmt.Errorf("open TUN device %s: %w", link, err)
	}
	quiet := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	u := &User{dev: device.NewDevice(newSteady(t), conn.NewDefaultBind(), quiet)}
	if resumes {
		u.wakes = time.Now().Add(resuming)
	}
	return u, nil
}

// stay makes a device outlive this process.
func stay(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(c.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }), err)
}

// resuming is how long a link has just begun to resume.
const resuming = 10 * time.Second

// steady is a device of which WireGuard does not hear whether its link is up: it would
// close its socket while the link is made, and open it again a second later, on a thread
// of whichever namespace.
type steady struct {
	tun.Device
	events chan tun.Event
}

func newSteady(d tun.Device) steady {
	s := steady{d, make(chan tun.Event)}
	go func() {
		defer close(s.events)
		for e := range d.Events() {
			if e&tun.EventMTUUpdate != 0 {
				s.events <- tun.EventMTUUpdate
			}
		}
	}()
	return s
}

func (s steady) Events() <-chan tun.Event { return s.events }

// Configure gives it its key and port, and opens its sockets in the calling thread's
// namespace.
func (u *User) Configure(private, public [KeyLen]byte, port uint16) error {
	var b strings.Builder
	setting(&b, "private_key", hexKey(private))
	setting(&b, "listen_port", port)
	if err := errors.Join(u.dev.IpcSet(b.String()), u.dev.Up()); err != nil {
		return fmt.Errorf("set up WireGuard: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now.Public, u.now.Port = public, port
	return nil
}

// Add adds a peer, or changes one. Addresses that it had stay its own.
func (u *User) Add(p Peer) error {
	if !p.Awake && time.Now().Before(u.wakes) {
		woken := p
		woken.Awake = true
		if err := u.add(woken); err != nil {
			return err
		}
	}
	return u.add(p)
}

func (u *User) add(p Peer) error {
	var b strings.Builder
	setting(&b, "public_key", hexKey(p.Key))
	setting(&b, "endpoint", p.At)
	setting(&b, "allowed_ip", p.Allowed)
	setting(&b, "persistent_keepalive_interval", p.keepalive())
	if err := u.dev.IpcSet(b.String()); err != nil {
		return fmt.Errorf("add WireGuard peer: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget(p.Key)
	u.now.Peers = append(u.now.Peers, p)
	return nil
}

// Remove removes a peer; one that is not there is no error.
func (u *User) Remove(key [KeyLen]byte) error {
	var b strings.Builder
	setting(&b, "public_key", hexKey(key))
	setting(&b, "remove", true)
	if err := u.dev.IpcSet(b.String()); err != nil {
		return fmt.Errorf("remove WireGuard peer: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget(key)
	return nil
}

func (u *User) forget(key [KeyLen]byte) {
	u.now.Peers = slices.DeleteFunc(u.now.Peers, func(p Peer) bool { return p.Key == key })
}

// Read says how it is set up.
func (u *User) Read() (Device, error) {
	text, err := u.dev.IpcGet()
	if err != nil {
		return Device{}, fmt.Errorf("read WireGuard: %w", err)
	}
	shaken := handshakes(text)
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.now
	d.Peers = slices.Clone(d.Peers)
	for i := range d.Peers {
		d.Peers[i].Shaken = shaken[hexKey(d.Peers[i].Key)]
	}
	return d, nil
}

// handshakes reads when the last one was with each key, from WireGuard's configuration
// protocol.
func handshakes(text string) map[string]time.Time {
	out, key, sec := map[string]time.Time{}, "", int64(0)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, _ := strconv.ParseInt(value, 10, 64) // of lines that are not numbers nothing is read
		switch name {
		case "public_key":
			key = value
		case "last_handshake_time_sec":
			sec = n
		case "last_handshake_time_nsec":
			out[key] = unixTime(sec, n)
		}
	}
	return out
}

// Close ends it. The link stays.
func (u *User) Close() error {
	u.dev.Close()
	return nil
}
