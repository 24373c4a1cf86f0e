package netspec

// Announce has the addresses that a link gets told to its neighbours, who may
// know another place for them: a container that had them before, or this one
// with another MAC address.
type Announce struct {
	NS    NS
	Link  string
	Times int // how often
	Every int // milliseconds from one to the next
}

func (a Announce) Key() Key { return Key{RankNeigh, a.NS, "announce " + a.Link} }
