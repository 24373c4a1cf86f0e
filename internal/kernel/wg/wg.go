// Package wg sets up WireGuard: by generic netlink where the kernel has it, else in this
// process, on a TUN device (golang.zx2c4.com/wireguard).
//
// Traps: a TUN device outlives the process that has it open, and swallows what is sent by
// it until another one opens it: without the kernel's WireGuard encrypted tunnels pause
// while isled is away, and nothing of them has to be made again. Sockets and devices
// belong to the namespace of the thread that opens them: all functions are to be called
// on a thread of the right one.
package wg

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// KeyLen is how long keys are.
const KeyLen = 32

// Kind is the kernel's name for the kind of link; KindUser is what a device of this
// process looks like.
const (
	Kind     = "wireguard"
	KindUser = "tun"
)

// keepalive is how many seconds a peer that is awake is silent at most. The first one is
// at once, so that there is a session before there is something to send, and a new one
// after a restart.
const keepalive = 25

func (p Peer) keepalive() uint16 {
	if p.Awake {
		return keepalive
	}
	return 0
}

// Peer is who may be at the other end.
type Peer struct {
	Key     [KeyLen]byte // public
	At      netip.AddrPort
	Allowed netip.Prefix
	Awake   bool      // the peers are never silent for long: see keepalive
	Shaken  time.Time // when the last handshake was done; zero: there was none. It is read only
}

// Device is a link as it is set up.
type Device struct {
	Public [KeyLen]byte
	Port   uint16
	Peers  []Peer
}

// ParseKey reads a key in base64.
func ParseKey(s string) (k [KeyLen]byte, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != KeyLen {
		return k, fmt.Errorf("a WireGuard key is %d bytes in base64, and %q is not", KeyLen, s)
	}
	return [KeyLen]byte(b), nil
}

// FormatKey writes a public key in base64.
func FormatKey(k [KeyLen]byte) string { return base64.StdEncoding.EncodeToString(k[:]) }

// setting is a line of WireGuard's configuration protocol.
func setting(b *strings.Builder, key string, v any) { fmt.Fprintf(b, "%s=%v\n", key, v) }

func hexKey(k [KeyLen]byte) string { return hex.EncodeToString(k[:]) }

// unixTime is a time of the kernel's, of which zero is never.
func unixTime(sec, nsec int64) time.Time {
	if sec == 0 && nsec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, nsec)
}
