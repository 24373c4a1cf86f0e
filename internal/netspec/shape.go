package netspec

// Shape holds back what is sent by a link: so much a second on average, and so much at
// once.
type Shape struct {
	NS    NS
	Link  string
	Rate  uint64 // bytes per second
	Burst uint32 // bytes
}

func (s Shape) Key() Key { return Key{RankGuard, s.NS, "shape " + s.Link} }
