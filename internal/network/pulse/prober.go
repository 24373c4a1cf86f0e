package pulse

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"isle/internal/netspec"
)

// What a host sends at most.
const (
	// Rate is how many frames a second ask, and Burst how many at once.
	Rate, Burst = 50, 100
	// Each host gets so many answers a second, and at once what a whole ladder asks for;
	// all of them together so many.
	answerRate, answerBurst       = 20, 4 * (2*rungs + 1)
	allAnswersRate, allAnswersMax = 4 * Rate, 8 * Rate
)

const (
	reopenAgain = time.Second
	stepLeast   = 50 * time.Millisecond // what is due within it is done together
)

// Wire sends and receives frames on a link.
type Wire interface {
	// Send sends a frame whose checksum, over what is from start on, is to be put at
	// offset there.
	Send(frame []byte, start, offset uint16) error
	// Receive waits for a frame; summed: somebody has computed its checksum. It fails when
	// the link goes, or after Close.
	Receive(b []byte) (n int, summed bool, err error)
	Close() error
}

// Prober finds out how the ways to other hosts are. Its fields are set once; then Run. Its
// methods may be called by several goroutines.
type Prober struct {
	Open func(link string) (Wire, error) // required
	// Tell is called when a way is other than it was, by one goroutine. It must not call
	// the Prober. May be nil.
	Tell func(Report)
	Log  *slog.Logger // required

	mu      sync.Mutex
	ways    map[string]*way
	asks    bucket
	dry     bool // who comes next has to wait for it
	answers bucket
	news    chan struct{} // something may be due
	start   sync.Once
}

// way is a tunnel of this host.
type way struct {
	Way
	self  end
	wire  Wire // nil: it is not open
	peers map[string]*peer
	byMAC map[netspec.MAC]*peer
	fit   int                // of the last peer that was found narrow
	stop  context.CancelFunc // ends who reads; nil: nobody does
}

func (p *Prober) init() {
	p.start.Do(func() { p.ways, p.news = map[string]*way{}, make(chan struct{}, 1) })
}

// Set says which ways there are: all of them.
func (p *Prober) Set(ways []Way) {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, want := time.Now(), map[string]bool{}
	for _, w := range ways {
		want[w.Name] = true
		if have := p.ways[w.Name]; have == nil || have.Self != w.Self || have.Link != w.Link {
			p.drop(w.Name)
			p.ways[w.Name] = &way{self: endOf(w.Self), peers: map[string]*peer{}}
		}
		p.ways[w.Name].set(now, w)
	}
	for name := range p.ways {
		if !want[name] {
			p.drop(name)
		}
	}
	p.wake()
}

// drop ends a way. mu is held.
func (p *Prober) drop(name string) {
	w := p.ways[name]
	if w == nil {
		return
	}
	delete(p.ways, name)
	if w.stop != nil {
		w.stop()
	}
	if w.wire != nil {
		_ = w.wire.Close()
	}
}

func (p *Prober) wake() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// set takes over what a way is now. What is known of its peers stays, but for how large
// frames may be, when that has changed.
func (w *way) set(now time.Time, v Way) {
	near := 0
	for _, q := range v.Peers {
		if q.Near {
			near++
		}
	}
	w.Way, w.byMAC = v, map[netspec.MAC]*peer{}
	old := w.peers
	w.peers = map[string]*peer{}
	for _, q := range v.Peers {
		p := old[q.ID]
		if p == nil || p.Addr != q.Addr {
			p = &peer{end: endOf(q.ID), due: now, said: Unknown}
		}
		p.become(now, q, v.MTU)
		if p.every = max(farEvery, time.Duration(len(v.Peers))*farPace); q.Near {
			p.every = max(nearEvery, time.Duration(near)*nearPace)
		}
		p.lost = max(lostEvery, time.Duration(len(v.Peers))*farPace)
		w.peers[q.ID], w.byMAC[p.end.mac] = p, p
	}
}

// become notes what a peer is now, and tries anew what that may have changed.
func (p *peer) become(now time.Time, q Peer, mtu int) {
	if p.mtu != mtu {
		p.mtu, p.fit, p.stage, p.due, p.wholeDue = mtu, 0, alive, now, now
	}
	if q.Near && !p.Near {
		p.due = now
	}
	p.Peer = q
}

// Run tries the ways until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	p.init()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer p.Set(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.news:
		case <-timer.C:
		}
		timer.Reset(p.step(ctx, &readers))
	}
}

// step does what is due, and returns how long nothing is.
func (p *Prober) step(ctx context.Context, readers *sync.WaitGroup) time.Duration {
	p.mu.Lock()
	now := time.Now()
	next := now.Add(farEvery)
	p.dry = false
	var reports []Report
	for _, w := range p.ways {
		if w.stop == nil {
			var life context.Context
			life, w.stop = context.WithCancel(ctx)
			readers.Go(func() { p.listen(life, w) })
		}
		for _, q := range w.ready(now) {
			p.tend(now, w, q)
		}
		for _, q := range w.peers {
			if c := q.contact(now); c.State != q.said {
				reports = append(reports, Report{w.Name, q.Peer, q.said, c})
				q.said = c.State
			}
			if at := q.next(); w.wire != nil && at.Before(next) {
				next = at
			}
		}
	}
	p.mu.Unlock()
	for _, r := range reports {
		if p.Tell != nil {
			p.Tell(r)
		}
	}
	return max(next.Sub(now), stepLeast)
}

// ready are the peers of a way for which something is to be done, those first that are
// halfway up the ladder, since what they find the others may guess; then those that have
// waited longest.
func (w *way) ready(now time.Time) (all []*peer) {
	for _, q := range w.peers {
		if !now.Before(q.next()) || q.over(now) {
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(a, b *peer) int {
		return cmp.Or(a.halfway()-b.halfway(), a.due.Compare(b.due), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// tend does what is due for a peer. Who cannot have all that it wants keeps those behind
// it waiting, or they would take it away again and again.
func (p *Prober) tend(now time.Time, w *way, q *peer) {
	w.conclude(now, q)
	if p.dry || w.wire == nil {
		return
	}
	q.guess = w.fit
	sizes := q.wanted(now)
	if p.dry = !p.asks.take(now, float64(len(sizes)), Burst, Rate); !p.dry && len(sizes) > 0 {
		q.begin(now, p.ask(w, q, sizes))
	}
}

// conclude ends a round that is over.
func (w *way) conclude(now time.Time, q *peer) {
	if !q.over(now) {
		return
	}
	if q.finish(now); q.fit != 0 {
		w.fit = q.fit
	}
}

// ask sends frames. One that cannot be sent is as good as lost.
func (p *Prober) ask(w *way, q *peer, sizes []int) map[uint64]int {
	asked := map[uint64]int{}
	for _, size := range sizes {
		nonce := rand.Uint64()
		asked[nonce] = size
		_ = w.wire.Send(q.message(ask, nonce).encode(w.self, q.end, size), sumStart, sumOffset)
	}
	return asked
}

// listen has the wire of a way open, and hears what comes.
func (p *Prober) listen(ctx context.Context, w *way) {
	for told := false; ctx.Err() == nil; {
		wire, err := p.Open(w.Link)
		if err == nil {
			told = false
			p.hear(ctx, w, wire)
		} else if !told {
			told = true
			p.Log.Debug("try the ways to other hosts: it is tried again", "link", w.Link, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenAgain):
		}
	}
}

// hear takes what comes until the link goes.
func (p *Prober) hear(ctx context.Context, w *way, wire Wire) {
	if !p.use(ctx, w, wire) {
		_ = wire.Close()
		return
	}
	b := make([]byte, ethernetLen+largest)
	for {
		n, summed, err := wire.Receive(b)
		if err != nil {
			break
		}
		p.take(w, b[:n], summed)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.wire = nil
	_ = wire.Close()
}

// use has a way sent by wire, unless the way is gone.
func (p *Prober) use(ctx context.Context, w *way, wire Wire) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	w.wire = wire
	p.wake()
	return true
}

// take hears a frame: of a host that is known, with its own addresses, or not at all.
func (p *Prober) take(w *way, b []byte, summed bool) {
	e, ok := open(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	q := w.byMAC[e.from.mac]
	if !ok || q == nil || e.from != q.end || e.to != w.self {
		return
	}
	m, known, intact := read(b, summed)
	now, size := time.Now(), len(b)-ethernetLen
	q.heard = now
	switch {
	case !intact:
		q.spoil(size)
	case known:
		q.sound(size)
		q.told.spoilt, q.told.fit = m.spoilt, int(m.fit)
		q.recall(now)
		p.respond(now, w, q, m)
	}
	w.conclude(now, q)
	if !now.Before(q.due) || q.contact(now).State != q.said {
		p.wake()
	}
}

// respond answers what asks, with no more bytes than were asked, and notes what answers.
func (p *Prober) respond(now time.Time, w *way, q *peer, m message) {
	if m.kind == answer {
		q.answered(now, m.nonce)
		return
	}
	if w.wire != nil && q.answers.take(now, 1, answerBurst, answerRate) && p.answers.take(now, 1, allAnswersMax, allAnswersRate) {
		_ = w.wire.Send(q.message(answer, m.nonce).encode(w.self, q.end, small), sumStart, sumOffset)
	}
}

// Contact is how a way to a host is; false: there is none.
func (p *Prober) Contact(name, host string) (Contact, bool) {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.ways[name]; w != nil && w.peers[host] != nil {
		return w.peers[host].contact(time.Now()), true
	}
	return Contact{}, false
}

// Reports are how all ways to all hosts are now, the worst of each host.
func (p *Prober) Reports() map[string]Report {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	out, now := map[string]Report{}, time.Now()
	for name, w := range p.ways {
		for id, q := range w.peers {
			r := Report{name, q.Peer, q.said, q.contact(now)}
			if old, ok := out[id]; !ok || r.Worse(old.Contact) {
				out[id] = r
			}
		}
	}
	return out
}
