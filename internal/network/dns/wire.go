package dns

import (
	"encoding/binary"
	"strings"
)

// The bits of a header's second word.
const (
	bitQR = 0x8000
	bitAA = 0x0400
	bitTC = 0x0200
	bitRD = 0x0100
	bitRA = 0x0080
	bitAD = 0x0020
	bitCD = 0x0010

	opcodes = 0x7800
	rcodes  = 0x000f
	bitDO   = 0x8000 // of an OPT record
)

// The numbers of types, classes and outcomes, and the datagram that everybody takes.
const (
	typeA, typeSOA, typePTR, typeAAAA, typeOPT = 1, 6, 12, 28, 41
	typeTKEY, typeAXFR, typeANY                = 249, 252, 255
	classINET, classANY                        = 1, 255

	noError, formErr, servFail, nxDomain, notImp, refused, badVers = 0, 1, 2, 3, 4, 5, 16

	minUDP = 512
)

const (
	headerLen = 12
	optLen    = 11
	udpSize   = 1232 // what we can take in one datagram, as we tell servers
	maxUDP    = 4096 // the largest datagram that is sent, whatever a client says
	maxTCP    = 65535
)

// query is a question as it came in. The parser below reads packets of people
// who mean ill: it goes forward only, each step at least one byte, and follows
// no compression pointers, so it ends.
type query struct {
	id, flags     uint16
	name          string // in lower case, without the last dot; strange bytes as \DDD
	wire          []byte // name, type and class as they were sent; part of the packet
	qtype, qclass uint16
	edns, do      bool
	limit         int // the largest answer that fits
	rcode         int // what is wrong with it
}

// parse reads a question. False: it is none, and nothing is answered, since
// answering answers is how two servers talk for ever.
func parse(b []byte, tcp bool) (q query, ok bool) {
	if len(b) < headerLen {
		return q, false
	}
	q.id, q.flags = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	q.limit = minUDP
	if q.flags&bitQR != 0 {
		return q, false
	}
	q.rcode = q.read(b)
	if tcp {
		q.limit = maxTCP
	}
	return q, true
}

// read reads what follows the header; its result says what is wrong.
func (q *query) read(b []byte) int {
	switch {
	case q.flags&opcodes != 0:
		return notImp
	case binary.BigEndian.Uint16(b[4:]) != 1:
		return formErr
	}
	off, ok := q.readName(b)
	if !ok || len(b) < off+4 {
		return formErr
	}
	q.wire = b[headerLen : off+4]
	q.qtype, q.qclass = binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:])
	if rcode := q.readOPT(b, off+4); rcode != noError {
		return rcode
	}
	if q.qclass != classINET && q.qclass != classANY || transfers(q.qtype) {
		return refused
	}
	return noError
}

// transfers: copying zones and setting up keys is not for clients of ours.
func transfers(t uint16) bool { return t >= typeTKEY && t <= typeAXFR }

func (q *query) readName(b []byte) (end int, ok bool) {
	var buf [255]byte
	name, off := buf[:0], headerLen
	for {
		if off >= len(b) {
			return 0, false
		}
		n := int(b[off])
		off++
		if n == 0 {
			break
		}
		if n > 63 || off+n > len(b) || off+n-headerLen > 254 {
			return 0, false
		}
		if len(name) > 0 {
			name = append(name, '.')
		}
		name = appendLabel(name, b[off:off+n])
		off += n
	}
	q.name = string(name)
	return off, true
}

func appendLabel(name, label []byte) []byte {
	for _, c := range label {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c <= ' ' || c == '.' || c == '\\' || c > '~':
			name = append(name, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			continue
		}
		name = append(name, c)
	}
	return name
}

// readOPT looks for the one OPT record that a question may have.
func (q *query) readOPT(b []byte, off int) int {
	before := int(binary.BigEndian.Uint16(b[6:])) + int(binary.BigEndian.Uint16(b[8:]))
	for i := range before + int(binary.BigEndian.Uint16(b[10:])) {
		r, ok := readRecord(b, off)
		if !ok || r.typ == typeOPT && (q.edns || i < before || b[off] != 0) {
			return formErr
		}
		off = r.end
		if r.typ != typeOPT {
			continue
		}
		q.edns, q.do = true, r.ttl&bitDO != 0
		q.limit = min(max(int(r.class), minUDP), maxUDP)
		if r.ttl>>16&0xff != 0 {
			return badVers
		}
	}
	return noError
}

// record is where a resource record is in a message.
type record struct {
	typ, class   uint16
	ttl          uint32
	ttlAt, start int
	end          int
}

func readRecord(b []byte, off int) (record, bool) {
	r := record{start: off}
	off, ok := skipName(b, off)
	if !ok || off+10 > len(b) {
		return r, false
	}
	r.typ, r.class, r.ttl = binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:]), binary.BigEndian.Uint32(b[off+4:])
	r.ttlAt = off + 4
	r.end = off + 10 + int(binary.BigEndian.Uint16(b[off+8:]))
	return r, r.end <= len(b)
}

// skipName ends at a compression pointer, which must point backwards.
func skipName(b []byte, off int) (int, bool) {
	for start := off; off < len(b); {
		n := int(b[off])
		switch {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+1 < len(b) && int(binary.BigEndian.Uint16(b[off:])&0x3fff) < start
		case n > 63:
			return 0, false
		}
		off += 1 + n
	}
	return 0, false
}

// begin writes a header and the question. It has no records yet.
func (q *query) begin(dst []byte, flags uint16, rcode int) []byte {
	flags |= bitQR | bitRA | q.flags&(bitRD|bitCD|opcodes) | uint16(rcode&rcodes)
	dst = binary.BigEndian.AppendUint16(dst, q.id)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	questions := byte(0)
	if q.wire != nil {
		questions = 1
	}
	dst = append(dst, 0, questions, 0, 0, 0, 0, 0, 0)
	return append(dst, q.wire...)
}

// finish counts the records of the message at start and answers an OPT record
// with one of ours.
func (q *query) finish(dst []byte, start, answers, authority, rcode int) []byte {
	binary.BigEndian.PutUint16(dst[start+6:], uint16(answers))
	binary.BigEndian.PutUint16(dst[start+8:], uint16(authority))
	if !q.edns {
		return dst
	}
	binary.BigEndian.PutUint16(dst[start+10:], 1+binary.BigEndian.Uint16(dst[start+10:]))
	return appendOPT(dst, queryRoom, q.do, rcode)
}

func appendOPT(dst []byte, size int, do bool, rcode int) []byte {
	dst = append(dst, 0, 0, typeOPT, byte(size>>8), byte(size), byte(rcode>>4), 0, 0, 0, 0, 0)
	if do {
		dst[len(dst)-4] |= bitDO >> 8
	}
	return dst
}

// room is how many bytes records may take up to.
func (q *query) room() int {
	if q.edns {
		return q.limit - optLen
	}
	return q.limit
}

// fail answers with nothing but an rcode.
func (q *query) fail(dst []byte, rcode int) []byte {
	start := len(dst)
	return q.finish(q.begin(dst, 0, rcode), start, 0, 0, rcode)
}

// appendName writes a name; what is none is written as the root.
func appendName(dst []byte, name string) []byte {
	start := len(dst)
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return append(dst[:start], 0)
		}
		dst = append(append(dst, byte(len(label))), label...)
	}
	if len(dst)-start > 254 {
		dst = dst[:start]
	}
	return append(dst, 0)
}
