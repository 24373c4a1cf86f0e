package cluster

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"isle/api"
	"isle/internal/fabric"
)

// four is a cluster of three members and two hosts more, d before e.
func four(l *lab) (a, b, c, d, e *host) {
	l.Helper()
	a, b, c, d, e = l.host(), l.host(), l.host(), l.host(), l.host()
	a.init()
	for _, h := range []*host{b, c, d, e} {
		l.must(h.join(a))
	}
	for _, h := range []*host{a, b, c, d, e} {
		l.eventually("all are alive", h.alive(5))
	}
	return a, b, c, d, e
}

// members are the names of those that vote, as a host sees it.
func (h *host) members() (names []string) {
	st, err := h.Status(context.Background())
	for _, m := range st.Members {
		if err == nil && m.Reachable && !m.Learning {
			names = append(names, m.Name)
		}
	}
	return names
}

func (h *host) sees(members ...*host) func() bool {
	return func() bool {
		var want []string
		for _, m := range members {
			want = append(want, m.name())
		}
		slices.Sort(want)
		return slices.Equal(h.members(), want)
	}
}

// TestMemberLeaves: the place of a member that leaves, or is removed, is taken by the host
// that has been in the cluster longest, of those that are alive; nobody sees it go
// meanwhile, and it can let others in then.
func TestMemberLeaves(t *testing.T) {
	l := newLab(t)
	a, b, c, d, e := four(l)
	gone := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = a.Fabric().Watch(ctx, func(ch fabric.Change) {
			for id, h := range ch.Hosts {
				if h == nil {
					gone <- id
				}
			}
		})
	}()
	left := c.session.Load().self.ID
	l.must(c.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("the longest-joined takes the place", func() bool { v, err := d.self(t.Context()); return err == nil && v.Member })
	d.stop() // in the middle of it
	d.start()
	l.eventually("it has the place", a.sees(a, b, d))
	l.eventually("it knows that it has its say", func() bool { v, err := d.self(t.Context()); return err == nil && v.Member && !v.Learning })
	if s := e.session.Load(); s.self.Member {
		t.Error("another one became a member too")
	}
	for len(gone) > 0 {
		if id := <-gone; id != left {
			t.Errorf("host %s was not seen for a moment", id)
		}
	}
	d.stop()
	d.start()
	l.eventually("it is one after a restart", a.sees(a, b, d))
	l.must(c.join(d)) // as the fifth, a host that is no member
	e.stop()
	l.eventually("e is not alive", a.alive(4))
	l.must(a.Remove(t.Context(), b.name()))
	l.eventually("one that is not alive is passed over", a.sees(a, c, d))
	l.must(d.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("it is said that nobody can", func() bool {
		st, err := a.Status(t.Context())
		return err == nil && strings.Contains(st.Problem, "2 members of 3")
	})
	e.start()
	l.eventually("one that comes back takes the place", a.sees(a, c, e))
	l.eventually("all is well", func() bool { st, err := e.Status(t.Context()); return err == nil && st.Problem == "" && st.Quorum })
}

// TestMemberCannot: who cannot become a member steps down, says why, and leaves nothing;
// the next one takes the place.
func TestMemberCannot(t *testing.T) {
	l := newLab(t)
	a, b, c, d, e := four(l)
	squatter, err := netListen(d.Advertise, d.Ports.Peer)
	l.must(err)
	defer squatter.Close()
	l.must(c.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("d says that it could not", func() bool {
		st, err := d.Status(t.Context())
		return err == nil && strings.Contains(st.Problem, "should become a member")
	})
	l.eventually("the next one has the place", a.sees(a, b, e))
	l.eventually("it is no problem any more", func() bool { st, err := d.Status(t.Context()); return err == nil && st.Problem == "" })
	l.eventually("d is none", func() bool { v, err := d.self(t.Context()); return err == nil && !v.Member && !v.Learning })
	_, kerr := os.Stat(d.Dir + "/" + unlockFile)
	_, derr := os.Stat(d.Dir + "/etcd")
	if !os.IsNotExist(kerr) || !os.IsNotExist(derr) {
		t.Errorf("a member's files are left: %v, %v", kerr, derr)
	}
	l.eventually("d is alive", func() bool { return a.alive(4)() && d.alive(4)() })
}

// TestMembersAtOnce: two that want the one place do not both get it, and a host whose
// answer was lost gives it back.
func TestMembersAtOnce(t *testing.T) {
	l := newLab(t)
	a, b, c, d, e := four(l)
	for _, h := range []*host{d, e} { // they are asked here
		h.stop()
	}
	l.must(c.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("c is gone", func() bool { hosts, err := b.Hosts(t.Context()); return err == nil && len(hosts) == 4 })
	ids := map[*host]string{}
	for _, h := range []*host{d, e} {
		v, err := h.self(t.Context())
		l.must(err)
		ids[h] = v.ID
	}
	results := make(chan error, 2)
	go func() { _, err := a.session.Load().takeSeat(t.Context(), ids[d]); results <- err }()
	go func() { _, err := b.session.Load().takeSeat(t.Context(), ids[e]); results <- err }()
	if one, two := <-results, <-results; (one == nil) == (two == nil) {
		t.Errorf("%v, %v", one, two)
	}
	l.must(a.session.Load().seat(t.Context(), ids[d], true)) // as if both had got an answer that was lost
	d.start()
	e.start()
	l.eventually("one of them is a member", func() bool { return a.sees(a, b, d)() || a.sees(a, b, e)() })
}
