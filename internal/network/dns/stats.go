package dns

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Stats is what a server has done since it began.
type Stats struct {
	Queries    uint64 // read
	Local      uint64 // answered from the records
	CacheHits  uint64
	Forwarded  uint64 // asked outside
	Joined     uint64 // waited for a question that was on its way already
	Stale      uint64 // answered with what was true once
	Failures   uint64 // no server had an answer
	Refused    uint64 // clients that asked more than their share
	CacheBytes int
	Cached     int
	Upstreams  []UpstreamStats // by address
}

// UpstreamStats is how one server outside does.
type UpstreamStats struct {
	Addr          netip.AddrPort
	RTT           time.Duration // smoothed; 0: it has never answered
	Asked, Failed uint64
	Dead          bool // it is asked only beside or after others
}

type counts struct {
	queries, local, hits, forwarded, joined, stale, failures, refused atomic.Uint64
}

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	c := &s.counts
	out := Stats{
		Queries: c.queries.Load(), Local: c.local.Load(), CacheHits: c.hits.Load(), Forwarded: c.forwarded.Load(),
		Joined: c.joined.Load(), Stale: c.stale.Load(), Failures: c.failures.Load(), Refused: c.refused.Load(),
		Upstreams: s.health.stats(),
	}
	out.Cached, out.CacheBytes = s.cache.size()
	return out
}

func (h *health) stats() []UpstreamStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []UpstreamStats
	for _, s := range h.of {
		u := s.total
		u.Addr, u.RTT, u.Dead = s.at, s.rtt, s.class() == 2
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b UpstreamStats) int { return a.Addr.Compare(b.Addr) })
	return out
}
