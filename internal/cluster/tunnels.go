package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Tunnel is how the tunnels to another host are.
type Tunnel struct {
	State   string
	Last    time.Time // that it answered
	Problem string    // in words; "": none
	Tried   bool      // it is not too early to say
}

// Who joins waits so long, at most, for having tried the ways to the others.
const (
	trialMost = 6 * time.Second
	trialLook = 50 * time.Millisecond
)

func (c *Cluster) tunnels() map[string]Tunnel {
	if c.Tunnels == nil {
		return nil
	}
	return c.Tunnels()
}

// tried waits until the ways to all others were tried, and says what is wrong with them.
func (c *Cluster) tried(ctx context.Context) []string {
	if c.Tunnels == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, trialMost)
	defer cancel()
	for !c.allTried() {
		select {
		case <-ctx.Done():
			return problems(c.tunnels())
		case <-time.After(trialLook):
		}
	}
	return problems(c.tunnels())
}

func (c *Cluster) allTried() bool {
	s, err := c.current()
	if err != nil {
		return true
	}
	view, tunnels := s.directory.View(), c.tunnels()
	for id := range view.Hosts {
		if id != s.self.ID && !tunnels[id].Tried {
			return false
		}
	}
	return view.Known
}

// problems are what is wrong, in words and in order.
func problems(tunnels map[string]Tunnel) (all []string) {
	for _, t := range tunnels {
		if t.Problem != "" {
			all = append(all, t.Problem)
		}
	}
	slices.Sort(all)
	return all
}

// summary is the first of what is wrong, and how much more there is.
func summary(all []string) string {
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s; and more with %d other hosts (hint: isle cluster ls)", all[0], len(all)-1)
}

// alive are the tunnels to hosts that are.
func alive[T any](tunnels map[string]Tunnel, hosts map[string]T) map[string]Tunnel {
	out := maps.Clone(tunnels)
	maps.DeleteFunc(out, func(id string, _ Tunnel) bool { _, lives := hosts[id]; return !lives })
	return out
}
