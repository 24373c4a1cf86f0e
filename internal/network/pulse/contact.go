package pulse

import (
	"fmt"
	"net/netip"
	"time"
)

// State is how a way to another host is.
type State string

// States of a way, from the one that nothing is known of to the worst.
const (
	Unknown State = "unknown" // too early
	Up      State = "up"
	Narrow  State = "narrow"  // large frames do not arrive
	Corrupt State = "corrupt" // frames arrive with wrong checksums
	Down    State = "down"    // no answer
)

// Contact is what is known of a way to another host.
type Contact struct {
	State State
	Last  time.Time // that it answered
	MTU   int       // what the way should take
	Fit   int       // narrow: what it takes
	// There and Back are the directions that are not as they should be: from here to the
	// host, and from the host to here.
	There, Back bool
	// Tried is that the first trial is over: it is not too early to say.
	Tried bool
}

// Worse reports whether c tells of more trouble than o. Of two ways without any the one
// that has answered later says more.
func (c Contact) Worse(o Contact) bool {
	if a, b := rank[c.State], rank[o.State]; a != b {
		return a > b
	}
	return c.Last.After(o.Last)
}

var rank = map[State]int{Unknown: 1, Up: 2, Narrow: 3, Corrupt: 4, Down: 5}

// Report says that a way to a host is other than it was.
type Report struct {
	Way  string // its name
	Peer Peer
	Old  State
	Contact
}

// Problem says in words what is wrong, and what helps; "": nothing.
func (r Report) Problem() string {
	switch who := fmt.Sprintf("host %s (%s)", r.Peer.Name, r.Peer.Addr); r.State {
	case Down:
		return who + ": " + r.silence()
	case Narrow:
		return fmt.Sprintf("%s: frames of more than %d bytes that are sent %s do not arrive, and %d should: a black hole (hint: repair the MTU on the way, or let ICMP \"too big\" through, or -o com.docker.network.driver.mtu=%d on networks)",
			who, r.Fit, r.direction(), r.MTU, r.Fit)
	case Corrupt:
		return fmt.Sprintf("%s: frames that are sent %s arrive with wrong checksums: a network card computes them wrongly inside of tunnels, or something on the way changes frames (hint: on the sender, ethtool -K INTERFACE tx-udp_tnl-csum-segmentation off tx-checksum-ip-generic off)",
			who, r.direction())
	}
	return ""
}

func (r Report) silence() string {
	switch {
	case r.There && !r.Back:
		return "it does not answer, though what it sends arrives (hint: is " + r.Way + " open there for this host?)"
	case r.Last.IsZero():
		return "nothing is heard of it by its tunnels (hint: does isled run there, and is " + r.Way + " open between the two?)"
	}
	return "it has not answered by its tunnels since " + r.Last.Format(time.TimeOnly) + " (hint: does isled run there, and is " + r.Way + " open between the two?)"
}

func (r Report) direction() string {
	switch {
	case r.There && r.Back:
		return "there and back"
	case r.Back:
		return "here from there"
	}
	return "there"
}

// Way is a tunnel to other hosts, by which frames of ours go.
type Way struct {
	Name  string // for people: what has to be open
	Link  string
	Self  string // this host's id
	MTU   int    // what it should take
	Peers []Peer
}

// Peer is a host at the other end.
type Peer struct {
	ID, Name string
	Addr     netip.Addr // as people know it
	Near     bool       // it has a network with this one
}
