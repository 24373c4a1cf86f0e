package cluster

import (
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"isle/api"
)

// trials are what a host finds out of the ways to others.
type trials struct {
	mu  sync.Mutex
	now map[string]Tunnel
}

func (x *trials) set(id string, t Tunnel) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now == nil {
		x.now = map[string]Tunnel{}
	}
	x.now[id] = t
}

func (x *trials) get() map[string]Tunnel {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.now)
}

// TestTunnels: who joins waits for the ways to the others to be tried, and is warned; the
// list of hosts and the status say it too, as long as the host is there.
func TestTunnels(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	x := &trials{}
	b.Tunnels = x.get
	a.init()
	id := a.Directory().View().Self
	x.set(id, Tunnel{State: "up"})
	const wrong = "host h1: a black hole"
	token := a.token()
	joined := make(chan api.ClusterHost)
	go func() {
		host, err := b.Join(context.Background(), api.ClusterJoinRequest{Token: token.Token, Hosts: token.Hosts, Name: b.name()})
		if err != nil {
			t.Error(err)
		}
		joined <- host
	}()
	l.eventually("both are alive", a.alive(2))
	x.set(id, Tunnel{State: "narrow", Problem: wrong, Last: time.Now(), Tried: true})
	if host := <-joined; len(host.Warnings) != 1 || host.Warnings[0] != wrong {
		t.Errorf("who joins is told %q", host.Warnings)
	}
	x.set("gone", Tunnel{State: "down", Problem: "host of long ago"})
	hosts, err := b.Hosts(t.Context())
	l.must(err)
	for _, h := range hosts {
		if h.Self != (h.Tunnel == "") || !h.Self && (h.Tunnel != "narrow" || h.Problem != wrong || h.LastContact.IsZero()) {
			t.Errorf("listed is %+v", h)
		}
	}
	l.eventually("the status says it", func() bool {
		st, err := b.Status(t.Context())
		return err == nil && st.Problem == wrong
	})
	if s := summary([]string{"one", "two", "three"}); !strings.HasPrefix(s, "one; and more with 2 ") {
		t.Errorf("the sum of several is %q", s)
	}
}
