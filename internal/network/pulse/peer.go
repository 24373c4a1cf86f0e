package pulse

import (
	"time"
)

// How often hosts are asked, and when what is concluded.
const (
	nearEvery                = 5 * time.Second       // a host with which there is a network
	farEvery                 = time.Minute           // another
	nearPace                 = 30 * time.Millisecond // times the number of hosts: with many, each is asked less often
	farPace                  = 60 * time.Millisecond
	wholeEvery               = 10 * time.Minute // frames of full size
	wholeSoon                = time.Minute      // the same, while something is wrong
	again                    = time.Second      // after silence
	lostEvery                = 10 * time.Second // a host that is silent, if that is sooner
	patienceMin, patienceMax = 300 * time.Millisecond, time.Second
	patienceRTT              = 4

	silent = 3 // rounds without an answer
	tries  = 3 // full frames that are lost while small ones arrive
	spoils = 3 // frames with wrong checksums
	rungs  = 16
)

// stage is what a round is for.
type stage uint8

const (
	alive  stage = iota // does it answer
	whole               // do frames of full size arrive
	ladder              // how large may they be
)

// peer is what is known of a host at the other end of a way. It is pure: it is told what
// time it is and what came, and says what to send.
type peer struct {
	Peer
	end   end
	mtu   int
	every time.Duration
	lost  time.Duration // the same, while it is silent

	last   time.Time // it answered
	heard  time.Time // something came from it
	rtt    time.Duration
	missed int  // rounds in a row without an answer
	tried  bool // frames of full size were
	fit    int  // of what we send no more arrives; 0: all does, as far as is known
	told   struct {
		spoilt bool // what comes from us has wrong checksums
		fit    int  // of what it sends no more arrives
	}
	bad, badSize int // frames that came otherwise than they were sent, and the least of them

	stage     stage
	tries     int
	low, high int // on the ladder: what arrives, and what does not
	guess     int // what arrived at the last host that was found narrow: it is often the same for all
	round     *round
	before    *round // its answers may be late
	due       time.Time
	wholeDue  time.Time

	answers bucket // that it may have
	said    State  // what was reported last
}

// round is frames that were sent together.
type round struct {
	asked map[uint64]int // nonce → size; what was answered is no more there
	got   int            // the largest that was answered
	begun time.Time
	end   time.Time
}

// wanted are the sizes of the frames to send now; none: nothing is due.
func (p *peer) wanted(now time.Time) []int {
	if p.round != nil || now.Before(p.due) {
		return nil
	}
	if p.stage == alive && p.missed == 0 && !p.last.IsZero() && !now.Before(p.wholeDue) {
		p.stage, p.tries = whole, 0
	}
	switch p.stage {
	case whole:
		return []int{small, p.mtu}
	case ladder:
		return append([]int{small}, p.steps()...)
	}
	return []int{small}
}

// steps are the rungs between what arrives and what does not, each twice: one may be lost.
func (p *peer) steps() (sizes []int) {
	if p.low < p.guess && p.guess < p.high {
		return []int{p.guess, p.guess, min(p.guess+1, p.high-1), min(p.guess+1, p.high-1)}
	}
	width := max((p.high-p.low+rungs)/(rungs+1), 1)
	for s := p.low + width; s < p.high; s += width {
		sizes = append(sizes, s, s)
	}
	return sizes
}

// halfway is less for who has begun to find out how large frames may be.
func (p *peer) halfway() int {
	if p.stage == ladder && p.low > small {
		return -1
	}
	return 0
}

// begin notes what was sent.
func (p *peer) begin(now time.Time, asked map[uint64]int) {
	patience := patienceMax / 2
	if p.rtt > 0 {
		patience = min(max(patienceRTT*p.rtt, patienceMin), patienceMax)
	}
	p.before, p.round = p.round, &round{asked: asked, begun: now, end: now.Add(patience)}
}

// answered notes an answer to a frame of ours.
func (p *peer) answered(now time.Time, nonce uint64) {
	for _, r := range []*round{p.round, p.before} {
		if r == nil {
			continue
		}
		size, ok := r.asked[nonce]
		if !ok {
			continue
		}
		delete(r.asked, nonce)
		r.got = max(r.got, size)
		p.last, p.missed, p.rtt = now, 0, now.Sub(r.begun)
	}
}

// recall has a host asked at once that was silent and is heard.
func (p *peer) recall(now time.Time) {
	if p.missed >= silent && p.round == nil && now.Sub(p.before.end) > again {
		p.due = now
	}
}

// spoil notes a frame that came otherwise than it was sent.
func (p *peer) spoil(size int) {
	if p.bad == 0 {
		p.badSize = size
	}
	p.bad, p.badSize = min(p.bad+1, spoils), min(p.badSize, size)
}

// sound notes a frame that came as it was sent.
func (p *peer) sound(size int) {
	if size >= p.badSize {
		p.bad = 0
	}
}

// over reports whether nothing more is to be waited for.
func (p *peer) over(now time.Time) bool {
	return p.round != nil && (len(p.round.asked) == 0 || !now.Before(p.round.end))
}

// next is when something is to be done.
func (p *peer) next() time.Time {
	if p.round != nil {
		return p.round.end
	}
	return p.due
}

// finish concludes a round.
func (p *peer) finish(now time.Time) {
	r := p.round
	p.before, p.round, p.due = r, nil, now.Add(p.every)
	switch {
	case r.got == 0:
		p.miss(now)
	case p.stage == whole:
		p.concludeWhole(now, r)
	case p.stage == ladder:
		p.climb(now, r)
	case !now.Before(p.wholeDue):
		p.due = now
	}
}

func (p *peer) miss(now time.Time) {
	p.stage = alive
	switch p.missed++; {
	case p.missed >= silent:
		p.due, p.wholeDue = now.Add(min(p.every, p.lost)), now // what is back may be another way
	case p.last.IsZero(): // it is just coming, perhaps
		p.due = now.Add(again / 2)
	default:
		p.due = now.Add(again)
	}
}

func (p *peer) concludeWhole(now time.Time, r *round) {
	if r.got >= p.mtu {
		p.fit = 0
		p.settle(now)
		return
	}
	p.due = now
	if p.tries++; p.tries >= tries {
		p.stage, p.low, p.high = ladder, small, p.mtu
	}
}

// climb narrows down what fits.
func (p *peer) climb(now time.Time, r *round) {
	p.low = max(p.low, r.got)
	for _, size := range r.asked {
		if size > p.low {
			p.high = min(p.high, size)
		}
	}
	if p.due = now; p.high-p.low <= 1 {
		p.fit = p.low
		p.settle(now)
	}
}

// settle ends the trial of full frames.
func (p *peer) settle(now time.Time) {
	p.tried, p.stage, p.due, p.wholeDue = true, alive, now.Add(p.every), now.Add(wholeEvery)
	if p.fit != 0 || p.told.spoilt || p.bad > 0 {
		p.wholeDue = now.Add(wholeSoon)
	}
}

// message is what it is to be told.
func (p *peer) message(k kind, nonce uint64) message {
	return message{kind: k, nonce: nonce, spoilt: p.bad >= spoils, fit: uint16(p.fit)}
}

// contact is what is known now.
func (p *peer) contact(now time.Time) Contact {
	c := Contact{State: Up, Last: p.last, MTU: p.mtu, Tried: p.tried || p.missed >= silent}
	fresh := now.Sub(p.heard) < silent*p.every+silent*again
	switch {
	case fresh && (p.bad >= spoils || p.told.spoilt):
		c.State, c.There, c.Back = Corrupt, p.told.spoilt, p.bad >= spoils
	case p.missed >= silent:
		c.State, c.There, c.Back = Down, true, !fresh
	case p.last.IsZero():
		c.State = Unknown
	case p.fit != 0 || p.told.fit != 0:
		c.State, c.There, c.Back, c.Fit = Narrow, p.fit != 0, p.told.fit != 0, narrower(p.fit, p.told.fit)
	}
	return c
}

// narrower is the lesser of those that are not 0.
func narrower(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// bucket is how much somebody may have: so much at once, and so much a second.
type bucket struct {
	level float64
	since time.Time
}

// take takes n, when they are there.
func (b *bucket) take(now time.Time, n, most, rate float64) bool {
	if b.since.IsZero() {
		b.level = most
	}
	b.level = min(most, b.level+rate*max(now.Sub(b.since).Seconds(), 0))
	b.since = now
	if b.level < n {
		return false
	}
	b.level -= n
	return true
}
