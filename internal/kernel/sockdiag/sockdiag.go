// Package sockdiag asks the kernel which sockets of a network namespace wait for
// what others send, by one dump for each family (sock_diag(7)). It is how ten
// thousand ports are compared with what other programs have, without binding
// each of them.
//
// What it says is true for a moment only: it is for telling people, not for
// holding ports.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

const (
	byFamily = 20 // SOCK_DIAG_BY_FAMILY

	requestLen = 56 // struct inet_diag_req_v2
	answerLen  = 72 // struct inet_diag_msg
	v6only     = 11 // INET_DIAG_SKV6ONLY

	// Sockets in these states receive from whoever sends: of TCP those that listen,
	// of UDP those that are not connected.
	stateListen = 10
	stateClose  = 7
)

var protocols = map[string]struct {
	number byte
	state  uint32
}{"tcp": {unix.IPPROTO_TCP, stateListen}, "udp": {unix.IPPROTO_UDP, stateClose}}

// InUse are the addresses at which sockets receive, in the namespace of the
// calling thread. A socket of both families is there twice.
func InUse(proto string) ([]netip.AddrPort, error) {
	p, ok := protocols[proto]
	if !ok {
		return nil, fmt.Errorf("list sockets: protocol %q is not known", proto)
	}
	c, err := nlmsg.Open(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	defer c.Close()
	var out []netip.AddrPort
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		msgs, err := c.Dump(nlmsg.Message{Type: byFamily, Data: request(family, p.number, p.state)})
		if errors.Is(err, unix.ENOENT) { // the kernel does not have the family
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s sockets: %w", proto, err)
		}
		for _, m := range msgs {
			out = append(out, decode(m)...)
		}
	}
	return out, nil
}

func request(family, proto byte, state uint32) []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = family, proto
	binary.NativeEndian.PutUint32(b[4:], 1<<state)
	return b
}

// decode reads one socket. A message that is too short is none.
func decode(b []byte) []netip.AddrPort {
	if len(b) < answerLen {
		return nil
	}
	port := binary.BigEndian.Uint16(b[4:])
	if port == 0 { // not bound yet
		return nil
	}
	if b[0] == unix.AF_INET {
		return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:])), port)}
	}
	a := netip.AddrFrom16([16]byte(b[8:])).Unmap()
	out := []netip.AddrPort{netip.AddrPortFrom(a, port)}
	if only := nlmsg.Find(b[answerLen:], v6only); a == netip.IPv6Unspecified() && (len(only) == 0 || only[0] == 0) {
		out = append(out, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	return out
}
