package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	udpPatience = patience        // with one datagram
	tcpPatience = 3 * time.Second // with one connection
	forgeries   = 16              // datagrams that are not the answer, before TCP is tried
)

var (
	errForged = errors.New("too many answers to other questions")
	errBad    = errors.New("malformed answer")
)

var datagrams = sync.Pool{New: func() any { return new([maxUDP]byte) }}

// dialer opens a connection to a server; nil: as the system does.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// exchange puts q to one server. One that does not know EDNS is asked without,
// and what does not fit into a datagram is asked for by TCP.
func (d dialer) exchange(ctx context.Context, at netip.AddrPort, tcp bool, q *query, plain bool) (e *entry, spare bool, err error) {
	e, err = d.once(ctx, at, tcp, q, plain)
	if err == nil && !plain && (e.rcode == formErr || e.rcode == notImp || e.rcode == badVers) {
		if second, err := d.once(ctx, at, tcp, q, true); err == nil && second.rcode != e.rcode {
			e, spare, plain = second, true, true
		}
	}
	if !tcp && err == nil && e.truncated {
		if whole, err := d.once(ctx, at, true, q, plain); err == nil {
			return whole, spare, nil
		}
	}
	return e, spare, err
}

// once asks from a socket of its own, so that its port is hard to guess.
func (d dialer) once(ctx context.Context, at netip.AddrPort, tcp bool, q *query, plain bool) (*entry, error) {
	patience := udpPatience
	if tcp {
		patience = tcpPatience
	}
	end := time.Now().Add(patience)
	c, err := d.open(ctx, at, tcp, end)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := c.SetDeadline(end); err != nil {
		return nil, err
	}
	m := q.outgoing(plain)
	if tcp {
		return stream(c, m)
	}
	return datagram(c, m)
}

// open goes straight to the system for a datagram: an address needs no looking up.
func (d dialer) open(ctx context.Context, at netip.AddrPort, tcp bool, end time.Time) (net.Conn, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	switch {
	case d != nil:
		return d(ctx, network, at.String())
	case tcp:
		return (&net.Dialer{Deadline: end}).DialContext(ctx, network, at.String())
	}
	return net.DialUDP(network, nil, net.UDPAddrFromAddrPort(at))
}

// outgoing is the question as it leaves: nothing of the client's is in it but
// the question and what it wants to hear of signatures.
func (q *query) outgoing(plain bool) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(rand.Uint32()))
	b = binary.BigEndian.AppendUint16(b, bitRD|bitAD|q.flags&bitCD)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 1)
	b = append(b, q.wire...)
	if plain {
		b[11] = 0
		return b
	}
	return appendOPT(b, udpSize, q.do, 0)
}

// datagram passes over what is not the answer: it may be forged, or late.
func datagram(c net.Conn, m []byte) (*entry, error) {
	if _, err := c.Write(m); err != nil {
		return nil, err
	}
	buf := datagrams.Get().(*[maxUDP]byte)
	defer datagrams.Put(buf)
	for range forgeries {
		n, err := c.Read(buf[:])
		if err != nil {
			return nil, err
		}
		if e, err := readAnswer(buf[:n], m); err == nil {
			return e, nil
		}
	}
	return nil, errForged
}

func stream(c net.Conn, m []byte) (*entry, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	return readAnswer(b, m)
}

// readAnswer takes b if it is the answer to the question m, as a copy.
func readAnswer(b, m []byte) (*entry, error) {
	if len(b) < headerLen || b[0] != m[0] || b[1] != m[1] || b[2]&0x80 == 0 || b[2]&(opcodes>>8) != 0 {
		return nil, errBad
	}
	end, _ := skipName(m, headerLen)
	end += 4
	rcode := int(b[3] & rcodes)
	if binary.BigEndian.Uint16(b[4:]) == 0 && rcode != noError && rcode != nxDomain {
		return &entry{rcode: rcode}, nil // some repeat no question when they refuse it
	}
	if binary.BigEndian.Uint16(b[4:]) != 1 || len(b) < end || !sameQuestion(b[headerLen:end], m[headerLen:end]) {
		return nil, errBad
	}
	e, err := newEntry(b, end)
	if err != nil {
		return nil, fmt.Errorf("answer from the name server: %w", err)
	}
	return e, nil
}

// lower is a name in lower case, as names have it: the ASCII letters only.
func lower(name []byte) []byte {
	name = bytes.Clone(name)
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			name[i] += 'a' - 'A'
		}
	}
	return name
}

func sameQuestion(a, b []byte) bool {
	name := len(a) - 4
	return bytes.Equal(a[name:], b[name:]) && bytes.Equal(lower(a[:name]), lower(b[:name]))
}
