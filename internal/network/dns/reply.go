package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

const ttl = 5 // seconds: a container may be gone in the next moment

// soa is the data of the record that lets clients remember for ttl seconds
// that something is not there: localhost. nobody.invalid. 1 3600 1200 604800 5
var soa = []byte("\x09localhost\x00\x06nobody\x07invalid\x00\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x04\xb0\x00\x09\x3a\x80\x00\x00\x00\x05")

// reply appends the answer to q, if it can be given from what is known here;
// forward: it is to be asked outside.
func (r *Records) reply(dst []byte, c *client, q *query, now time.Time) (out []byte, forward bool) {
	if q.rcode != noError {
		return q.fail(dst, q.rcode), false
	}
	var a Answer
	switch p, below, ok := reverse(q.name); {
	case ok && (below || !p.IsSingleIP()):
		a = r.block(c, p, below, now)
	case ok:
		a = r.addr(c, p.Addr(), now)
	default:
		a = r.name(c, q.name, now)
	}
	if a.Forward {
		return dst, true
	}
	return q.answer(dst, a), false
}

// answer appends what a says. A datagram takes what fits, in a random order.
func (q *query) answer(dst []byte, a Answer) []byte {
	start, rcode := len(dst), noError
	if !a.Found {
		rcode = nxDomain
	}
	dst = q.begin(dst, bitAA, rcode)
	n, all := 0, true
	rand.Shuffle(len(a.Addrs), func(i, j int) { a.Addrs[i], a.Addrs[j] = a.Addrs[j], a.Addrs[i] })
	for _, ip := range a.Addrs {
		if q.asksFor(ip) && all {
			dst, all = q.add(dst, start, &n, func(b []byte) []byte { return appendAddr(b, ip) })
		}
	}
	for _, name := range a.Names {
		if (q.qtype == typePTR || q.qtype == typeANY) && all {
			dst, all = q.add(dst, start, &n, func(b []byte) []byte { return appendPTR(b, name) })
		}
	}
	nothing := 0
	if n == 0 && all {
		dst, _ = q.add(dst, start, &nothing, q.appendSOA)
	}
	if !all {
		dst[start+2] |= bitTC >> 8
	}
	return q.finish(dst, start, n, nothing, rcode)
}

func (q *query) asksFor(ip netip.Addr) bool {
	return q.qtype == typeANY || q.qtype == typeA && ip.Is4() || q.qtype == typeAAAA && ip.Is6()
}

// add appends a record to the message at start and counts it, if there is room.
func (q *query) add(dst []byte, start int, n *int, record func([]byte) []byte) ([]byte, bool) {
	more := record(dst)
	if len(more)-start > q.room() {
		return more[:len(dst)], false
	}
	*n++
	return more, true
}

// appendHead writes a record of the name in the question, up to its data.
func appendHead(dst []byte, t uint16, size int) []byte {
	return append(dst, 0xc0, headerLen, byte(t>>8), byte(t), 0, classINET, 0, 0, 0, ttl, byte(size>>8), byte(size))
}

func appendAddr(dst []byte, ip netip.Addr) []byte {
	if ip.Is4() {
		b := ip.As4()
		return append(appendHead(dst, typeA, len(b)), b[:]...)
	}
	b := ip.As16()
	return append(appendHead(dst, typeAAAA, len(b)), b[:]...)
}

func appendPTR(dst []byte, name string) []byte {
	at := len(dst)
	dst = appendName(appendHead(dst, typePTR, 0), name)
	binary.BigEndian.PutUint16(dst[at+10:], uint16(len(dst)-at-12))
	return dst
}

// appendSOA writes a record of the name above that of the question.
func (q *query) appendSOA(dst []byte) []byte {
	above := q.wire[:len(q.wire)-4]
	above = above[min(1+int(above[0]), len(above)-1):]
	dst = append(dst, above...)
	dst = append(dst, 0, typeSOA, 0, classINET, 0, 0, 0, ttl, 0, byte(len(soa)))
	return append(dst, soa...)
}
