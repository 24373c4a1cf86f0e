package dns

import (
	"bytes"
	"encoding/binary"
	"time"
)

const (
	maxTTL      = time.Hour       // that an answer is kept
	maxNegative = time.Minute     // that "no such name" is kept
	maxStale    = 24 * time.Hour  // that an answer may help after its end
	staleTTL    = 30              // seconds, of such an answer (RFC 8767)
	minSOA      = 22              // bytes of an SOA record's data
	overhead    = 256             // bytes of an entry besides its message
	largest     = 32 << 10        // message that is kept
	holdOff     = 5 * time.Second // after a failure, until a stale answer is tried to be renewed
)

// entry is an answer of a server outside as it is kept: the message without
// its OPT record, and where the TTLs in it are. It is never changed.
type entry struct {
	wire      []byte
	ttls      []uint16 // of the answer section first
	question  int      // where the question ends
	answers   int
	rcode     int
	truncated bool
	soa       bool // it says who knows that there is nothing
	at        time.Time
	ttl       time.Duration // 0: not to be kept
}

// newEntry reads the records of message b, whose question ends at off.
func newEntry(b []byte, off int) (*entry, error) {
	flags := binary.BigEndian.Uint16(b[2:])
	e := &entry{question: off, rcode: int(flags & rcodes), truncated: flags&bitTC != 0, at: time.Now()}
	e.answers = int(binary.BigEndian.Uint16(b[6:]))
	authority := e.answers + int(binary.BigEndian.Uint16(b[8:]))
	all := authority + int(binary.BigEndian.Uint16(b[10:]))
	life := lifetime{}
	for i := range all {
		r, ok := readRecord(b, off)
		if !ok && e.truncated {
			return e.cut(b), nil
		}
		if !ok {
			return nil, errBad
		}
		if i >= authority && r.typ == typeOPT {
			e.rcode |= int(r.ttl>>24) << 4
			return e.keep(b[:off], i-authority, life), nil // what follows is not needed
		}
		life.see(b, r, i < e.answers, i < authority)
		e.ttls = append(e.ttls, uint16(r.ttlAt))
		off = r.end
	}
	return e.keep(b[:off], max(all-authority, 0), life), nil
}

// cut is what can be used of a message that ends in the middle of a record: the
// answers before it.
func (e *entry) cut(b []byte) *entry {
	e.answers = min(e.answers, len(e.ttls))
	e.ttls = e.ttls[:e.answers]
	b = bytes.Clone(b[:e.end(b, e.answers)])
	binary.BigEndian.PutUint16(b[6:], uint16(e.answers))
	binary.BigEndian.PutUint16(b[8:], 0)
	return e.keep(b, 0, lifetime{})
}

func (e *entry) keep(b []byte, additional int, life lifetime) *entry {
	e.wire, e.soa = bytes.Clone(b), life.soa
	binary.BigEndian.PutUint16(e.wire[10:], uint16(additional))
	if e.usable() && !e.truncated && len(b) <= largest {
		e.ttl = life.of(e)
	}
	return e
}

// usable: it helps the client, were it only to know that there is nothing.
func (e *entry) usable() bool {
	return e.rcode == noError && !e.lame() || e.rcode == nxDomain
}

// lame: the server has nothing to say and would not ask others either.
func (e *entry) lame() bool {
	return e.answers == 0 && !e.soa && binary.BigEndian.Uint16(e.wire[2:])&(bitAA|bitRA) == 0
}

func (e *entry) size() int { return len(e.wire) + 2*len(e.ttls) + overhead }

func (e *entry) fresh(now time.Time) bool { return now.Before(e.at.Add(e.ttl)) }

// lifetime gathers how long an answer holds.
type lifetime struct {
	answers, negative uint32
	any, soa          bool
}

func (l *lifetime) see(b []byte, r record, answer, authority bool) {
	if r.ttl > 1<<31-1 { // RFC 2181: as if it were zero
		r.ttl = 0
	}
	switch {
	case answer && (!l.any || r.ttl < l.answers):
		l.answers, l.any = r.ttl, true
	case !answer && authority && r.typ == typeSOA && r.end-r.ttlAt-6 >= minSOA:
		l.negative, l.soa = min(r.ttl, binary.BigEndian.Uint32(b[r.end-4:])), true
	}
}

func (l *lifetime) of(e *entry) time.Duration {
	answers, negative := time.Duration(l.answers)*time.Second, time.Duration(l.negative)*time.Second
	switch {
	case l.soa && l.any:
		return min(answers, negative, maxNegative)
	case l.soa:
		return min(negative, maxNegative)
	case l.any && e.rcode == noError:
		return min(answers, maxTTL)
	}
	return 0 // "no such name" from one who does not say for how long
}

// reply appends the answer for q, with its spelling of the name. TTLs have
// gone down since; a stale answer has a short one. It has to be usable.
func (e *entry) reply(dst []byte, q *query, now time.Time) []byte {
	start, end, answers := len(dst), len(e.wire), e.answers
	if end > q.room() {
		end, answers = e.fitting(q.room())
	}
	dst = append(dst, e.wire[:end]...)
	m := dst[start:]
	binary.BigEndian.PutUint16(m, q.id)
	flags := binary.BigEndian.Uint16(m[2:])&^(bitRD|bitCD|bitAD) | bitRA | q.flags&(bitRD|bitCD)
	if q.do || q.flags&bitAD != 0 {
		flags |= binary.BigEndian.Uint16(e.wire[2:]) & bitAD
	}
	authority := int(binary.BigEndian.Uint16(m[8:]))
	if end < len(e.wire) {
		if answers < e.answers || e.answers == 0 || q.do {
			flags |= bitTC // RFC 2181: not for records that only come along
		}
		authority = 0
		binary.BigEndian.PutUint16(m[10:], 0)
	}
	binary.BigEndian.PutUint16(m[2:], flags)
	copy(m[headerLen:], q.wire)
	e.age(m, now)
	return q.finish(dst, start, answers, authority, e.rcode)
}

// fitting is how much of the answer section a datagram takes.
func (e *entry) fitting(room int) (end, answers int) {
	for answers < e.answers && e.end(e.wire, answers+1) <= room {
		answers++
	}
	return e.end(e.wire, answers), answers
}

// end is where the first n records of message b end.
func (e *entry) end(b []byte, n int) int {
	if n == 0 {
		return e.question
	}
	at := int(e.ttls[n-1])
	return at + 6 + int(binary.BigEndian.Uint16(b[at+4:]))
}

func (e *entry) age(m []byte, now time.Time) {
	passed, fresh := uint32(now.Sub(e.at)/time.Second), e.fresh(now) || e.ttl == 0
	for _, at := range e.ttls {
		if int(at) >= len(m) {
			return
		}
		left := binary.BigEndian.Uint32(m[at:])
		switch {
		case !fresh:
			left = min(left, staleTTL)
		case left > passed:
			left -= passed
		default:
			left = 0
		}
		binary.BigEndian.PutUint32(m[at:], left)
	}
}
