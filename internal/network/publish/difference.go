package publish

import "net/netip"

// Missing is what of reqs is not among have. A request of any free port is
// always missing.
func Missing(reqs []Request, have []Mapping) []Request {
	l := newLedger(have)
	var out []Request
	for _, r := range reqs {
		if !r.fixed() {
			out = append(out, r)
			continue
		}
		out = append(out, l.missing(r)...)
	}
	return out
}

// Difference is what must be claimed, and what given up, for have to become what
// reqs say. What can stay stays, so a request of any free port keeps its port.
func Difference(reqs []Request, have []Mapping) (claim []Request, drop []Mapping) {
	l := newLedger(have)
	l.reserve(reqs)
	for _, r := range reqs { // fixed ones come first: see Parse
		if r.fixed() {
			claim = append(claim, l.missing(r)...)
		} else if !l.keeps(r) {
			claim = append(claim, r)
		}
	}
	for m := range Each(have) {
		if l.unused[m] {
			drop = append(drop, m)
		}
	}
	return claim, Join(drop)
}

// ledger is ports, one by one, and which of them nobody has asked for yet.
type ledger struct {
	all, unused map[Mapping]bool
	inside      map[portOf][]Mapping
	reserved    map[portOf]bool // host ports that are asked for by their number
}

func (l ledger) reserve(reqs []Request) {
	for _, r := range reqs {
		if r.fixed() {
			for i := range max(r.Count, 1) {
				l.reserved[portOf{r.Proto, r.First + i}] = true
			}
		}
	}
}

func newLedger(have []Mapping) ledger {
	l := ledger{map[Mapping]bool{}, map[Mapping]bool{}, map[portOf][]Mapping{}, map[portOf]bool{}}
	for m := range Each(have) {
		l.all[m], l.unused[m] = true, true
		to := portOf{m.Proto, m.ContainerPort}
		l.inside[to] = append(l.inside[to], m)
	}
	return l
}

// missing is what of a fixed request is not there, as rows.
func (l ledger) missing(r Request) []Request {
	var out []Request
	for _, ip := range r.HostIPs {
		var rows []Mapping
		for m := range Each([]Mapping{r.mapping(ip, r.First)}) {
			if delete(l.unused, m); !l.all[m] {
				rows = append(rows, m)
			}
		}
		for _, m := range Join(rows) {
			out = append(out, m.request())
		}
	}
	return out
}

// request asks for m.
func (m Mapping) request() Request {
	return Request{Proto: m.Proto, ContainerPort: m.ContainerPort, HostIPs: []netip.Addr{m.HostIP}, First: m.HostPort, Last: m.HostPort,
		Count: m.Count, Iface: m.Iface, From: m.From}
}

// keeps finds a port that r may have become and takes it for r.
func (l ledger) keeps(r Request) bool {
	for _, m := range l.inside[portOf{r.Proto, r.ContainerPort}] {
		if l.unused[m] && l.all[m] && l.serves(r, m.HostPort) {
			for _, ip := range r.HostIPs {
				delete(l.unused, r.mapping(ip, m.HostPort))
			}
			return true
		}
	}
	return false
}

func (l ledger) serves(r Request, port uint16) bool {
	if l.reserved[portOf{r.Proto, port}] || r.First != 0 && (port < r.First || port > r.Last) {
		return false
	}
	for _, ip := range r.HostIPs {
		if !l.unused[r.mapping(ip, port)] {
			return false
		}
	}
	return true
}
