package directory

import (
	"net/netip"
	"time"

	"isle/internal/fabric"
)

// resting are addresses that endpoints of other hosts had until lately. A host that is cut
// off and comes back finds those of its containers free if nobody has chosen them
// meanwhile; so they are chosen last. It keeps two generations, each for restFor, and looks
// through neither.
type resting struct {
	now, before map[spot]struct{}
	since       time.Time // when now began
}

// spot is an address on a network.
type spot struct {
	network string
	addr    netip.Addr
}

const restFor = 10 * time.Minute

// add notes the addresses of an endpoint that is gone.
func (r *resting) add(e fabric.Endpoint, at time.Time) {
	if at.Sub(r.since) >= restFor {
		r.now, r.before, r.since = map[spot]struct{}{}, r.now, at
	}
	for _, a := range e.Addrs {
		r.now[spot{e.Network, a.Addr().Unmap()}] = struct{}{}
	}
}

// has reports whether an address rests at a time.
func (r *resting) has(s spot, at time.Time) bool {
	if _, ok := r.now[s]; ok {
		return at.Sub(r.since) < 2*restFor
	}
	_, ok := r.before[s]
	return ok && at.Sub(r.since) < restFor
}

func (r *resting) len() int { return len(r.now) + len(r.before) }
