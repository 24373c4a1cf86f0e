package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
)

// clocksAgain is how long what was found out of the members' clocks counts, so that who
// asks often for the status does not wear out the doors.
const clocksAgain = 5 * time.Second

// clocks are those of the members, as they were compared last with this host's.
type clocks struct {
	mu   sync.Mutex
	at   time.Time
	wall time.Time                // without its monotonic part
	off  map[string]time.Duration // name → how far it is ahead of this host's
}

// skew is what is wrong with clocks, in words: certificates have times. What is needed
// for it is asked of members' doors, without looking at the times of their certificates.
func (s *session) skew(ctx context.Context) string {
	c := &s.clocks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) > clocksAgain || c.jumped() {
		c.off, c.at, c.wall = s.askClocks(ctx), time.Now(), time.Now().Round(0)
	}
	return describeSkew(c.off)
}

// jumped: this host's clock was set since.
func (c *clocks) jumped() bool {
	return (time.Since(c.at) - time.Now().Round(0).Sub(c.wall)).Abs() > time.Minute
}

func (s *session) askClocks(ctx context.Context) map[string]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	off := map[string]time.Duration{}
	for name, at := range s.otherDoors() {
		wg.Go(func() {
			if d, err := door.Ahead(ctx, at, pki.Hash(s.identity.CA())); err == nil {
				mu.Lock()
				defer mu.Unlock()
				off[name] = d
			}
		})
	}
	wg.Wait()
	return off
}

// otherDoors are those of the other members, by name. Who has read nothing since isled was
// started, as one whose clock is beyond all certificates, knows where members were.
func (s *session) otherDoors() map[string]string {
	all := map[string]string{}
	for id, r := range s.known.Load().hosts {
		if id != s.self.ID && r.Member {
			all[r.Name] = r.door()
		}
	}
	if len(s.known.Load().hosts) > 0 || s.self.External {
		return all
	}
	for _, e := range s.self.Endpoints {
		if u, err := url.Parse(e); err == nil && u.Hostname() != s.self.Addr.String() {
			all[u.Hostname()] = net.JoinHostPort(u.Hostname(), strconv.Itoa(int(s.self.Ports.Door)))
		}
	}
	return all
}

// describeSkew: when the others agree that this host's clock is wrong, it is.
func describeSkew(off map[string]time.Duration) string {
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(off)) {
		if off[name].Abs() > door.MaxSkew {
			wrong = append(wrong, name)
		}
	}
	switch {
	case len(wrong) == 0:
		return ""
	case len(wrong) == len(off):
		return fmt.Sprintf("this host's clock is %s those of %s (hint: set the one that is wrong: certificates have times)", door.Skew(off[wrong[0]]), strings.Join(wrong, ", "))
	}
	return fmt.Sprintf("the clock of %s is %s this host's (hint: set the one that is wrong: certificates have times)", wrong[0], door.Skew(-off[wrong[0]]))
}
