package directory

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"isle/internal/fabric"
	"isle/internal/store/etcd"
)

// state is what is known. Applying a batch costs what is in it; a View is made when
// somebody asks for one, of the parts that changed since.
type state struct {
	log *slog.Logger

	mu        sync.Mutex
	self      string
	known     bool
	revision  int64
	contact   time.Time // when something was heard from the store last
	hosts     part[fabric.Host]
	networks  part[fabric.Network]
	endpoints part[fabric.Endpoint]
	taken     map[string]map[netip.Addr]string // network → address → endpoint
	resting   resting
	under     map[string]int64  // own endpoint → the lease that it goes with
	faults    map[string]string // key → what is wrong with it
	readers   map[*reader]struct{}
	news      chan struct{} // closed and replaced by each batch
}

// part is a map of which snapshots are given out.
type part[T any] struct {
	now  map[string]T
	last map[string]T // a copy of now, until it is changed
}

func (p *part[T]) set(id string, v T) { p.now[id], p.last = v, nil }
func (p *part[T]) drop(id string)     { delete(p.now, id); p.last = nil }

func (p *part[T]) snapshot() map[string]T {
	if p.last == nil {
		p.last = maps.Clone(p.now)
	}
	return p.last
}

func (s *state) init(self string, log *slog.Logger) {
	s.self, s.log = self, log
	s.readers, s.news = map[*reader]struct{}{}, make(chan struct{})
	s.forgetLocked()
}

func (s *state) forgetLocked() {
	s.hosts = part[fabric.Host]{now: map[string]fabric.Host{}}
	s.networks = part[fabric.Network]{now: map[string]fabric.Network{}}
	s.endpoints = part[fabric.Endpoint]{now: map[string]fabric.Endpoint{}}
	s.taken, s.under, s.faults = map[string]map[netip.Addr]string{}, map[string]int64{}, map[string]string{}
}

func (s *state) view() fabric.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fabric.View{
		Self: s.self, Known: s.known, Revision: s.revision,
		Hosts: s.hosts.snapshot(), Networks: s.networks.snapshot(), Endpoints: s.endpoints.snapshot(),
	}
}

// following is the revision up to which all is known; 0: nothing is.
func (s *state) following() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

// apply takes a batch of the store in and tells the readers.
func (s *state) apply(b etcd.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *newChange(b.Revision)
	if b.Reset {
		s.restLocked()
		s.forgetLocked()
	}
	for _, e := range b.Events {
		s.eventLocked(e, c)
	}
	s.known, s.revision, s.contact = true, max(b.Revision, s.revision), time.Now()
	if b.Reset {
		c = fabric.Change{Reset: true, Revision: b.Revision}
	}
	if c.Reset || len(c.Hosts)+len(c.Networks)+len(c.Endpoints) > 0 {
		s.tellLocked(c)
	}
	close(s.news)
	s.news = make(chan struct{})
}

func (s *state) eventLocked(e etcd.Event, c fabric.Change) {
	kind, id := e.Key, ""
	if i := strings.LastIndexByte(e.Key, '/'); i >= 0 {
		kind, id = e.Key[:i], e.Key[i+1:]
	}
	var err error
	switch kind {
	case hostPrefix:
		err = take(&s.hosts, e, id, c.Hosts, checkHost, func(h fabric.Host) string { return h.ID })
	case networkPrefix:
		err = take(&s.networks, e, id, c.Networks, checkNetwork, func(n fabric.Network) string { return n.ID })
	case endpointPrefix:
		s.releaseLocked(s.endpoints.now[id], e.Gone)
		err = take(&s.endpoints, e, id, c.Endpoints, checkEndpoint, func(x fabric.Endpoint) string { return x.ID })
		s.stampLocked(id, e, c)
	default:
		if !e.Gone {
			err = errUnknown
		}
	}
	s.reportLocked(e, err)
}

// take puts what a key says into p and into the change; what cannot be read is as if it
// were not there.
func take[T any](p *part[T], e etcd.Event, id string, changed map[string]*T, check func(T) error, idOf func(T) string) (err error) {
	var v T
	if !e.Gone {
		err = decode(e, &v, check, idOf)
	}
	if e.Gone || err != nil {
		if _, was := p.now[id]; was {
			p.drop(id)
			changed[id] = nil
		}
		return err
	}
	p.set(id, v)
	changed[id] = &v
	return nil
}

// stampLocked gives an endpoint that was just taken in its generation.
func (s *state) stampLocked(id string, from etcd.Event, c fabric.Change) {
	delete(s.under, id)
	e, ok := s.endpoints.now[id]
	if !ok {
		return
	}
	if e.Host == s.self {
		s.under[id] = from.Lease
	}
	e.Generation = from.Revision
	s.endpoints.set(id, e)
	c.Endpoints[id] = &e
	if s.taken[e.Network] == nil {
		s.taken[e.Network] = map[netip.Addr]string{}
	}
	for _, a := range e.Addrs {
		s.taken[e.Network][a.Addr().Unmap()] = id
	}
}

// restLocked has all rest that others have: what is read anew may not have it any more.
func (s *state) restLocked() {
	for _, e := range s.endpoints.now {
		s.releaseLocked(e, true)
	}
}

func (s *state) releaseLocked(e fabric.Endpoint, gone bool) {
	if gone && e.ID != "" && e.Host != s.self {
		s.resting.add(e, time.Now())
	}
	for _, a := range e.Addrs {
		if a := a.Addr().Unmap(); s.taken[e.Network][a] == e.ID {
			delete(s.taken[e.Network], a)
		}
	}
	if len(s.taken[e.Network]) == 0 {
		delete(s.taken, e.Network)
	}
}

func (s *state) reportLocked(e etcd.Event, err error) {
	if err == nil {
		delete(s.faults, e.Key)
		return
	}
	if s.faults[e.Key] != err.Error() {
		s.log.Warn("a record of the cluster is ignored", "key", e.Key, "error", err)
	}
	s.faults[e.Key] = err.Error()
}

// Faults are the records that are ignored, and why.
func (d *Directory) Faults() (all []string) {
	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(d.state.faults)) {
		all = append(all, k+": "+d.state.faults[k])
	}
	return all
}

// Contact is when something was heard from the store last: a change, or that the lease
// goes on.
func (d *Directory) Contact() time.Time {
	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	return d.state.contact
}

func (s *state) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contact = time.Now()
}
