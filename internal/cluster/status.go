package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"isle/api"
	"isle/internal/fabric"
)

// answerWithin is how long a member may take to say how it is: three times there and back
// for the connection, and one for the question.
const answerWithin = 3 * time.Second

// Hosts are those of the cluster, by name, as this host knows them.
func (c *Cluster) Hosts(context.Context) (all []api.ClusterHost, err error) {
	s, err := c.current()
	if err != nil {
		return nil, err
	}
	alive, known, tunnels := s.directory.View().Hosts, s.known.Load().hosts, c.tunnels()
	if len(known) == 0 {
		return nil, fmt.Errorf("nothing has been read of the cluster since isled was started: its members cannot be reached or have no quorum (hint: isle cluster status): %w", errdefs.ErrUnavailable)
	}
	for id, r := range known {
		_, lives := alive[id]
		t := tunnels[id]
		all = append(all, api.ClusterHost{ID: id, Name: r.Name, Addr: r.Addr.String(), Member: r.Member, Alive: lives, Self: id == s.self.ID,
			Tunnel: t.State, LastContact: t.Last, Problem: t.Problem})
	}
	slices.SortFunc(all, func(a, b api.ClusterHost) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Status is how the cluster is. It also answers when nobody else does.
func (c *Cluster) Status(ctx context.Context) (st api.ClusterStatus, err error) {
	s, err := c.current()
	if err != nil {
		return st, err
	}
	s.directory.CatchUp(ctx)
	view := s.directory.View()
	st = api.ClusterStatus{
		ID: s.self.Cluster, Host: s.self.ID, Name: s.self.Name, External: s.self.External, Alive: len(view.Hosts), Hosts: len(s.known.Load().hosts),
		Seen: view.Revision, LastContact: s.directory.Contact(), CertificateEnd: s.identity.Cert().Leaf.NotAfter, Ignored: s.directory.Faults(),
	}
	var skew string
	var wg sync.WaitGroup
	wg.Go(func() { skew = s.skew(ctx) })
	s.askMembers(ctx, &st)
	wg.Wait()
	if st.Problem = s.problem(st, view, skew); st.Problem == "" {
		st.Problem = s.vacancy(ctx)
	}
	return st, nil
}

// askMembers asks all of them at the same time.
func (s *session) askMembers(ctx context.Context, st *api.ClusterStatus) {
	st.Members = s.members()
	leaders := make([]uint64, len(st.Members))
	own := make([]uint64, len(st.Members))
	var wg sync.WaitGroup
	for i := range st.Members {
		wg.Go(func() { own[i], leaders[i] = s.askMember(ctx, &st.Members[i]) })
	}
	wg.Wait()
	voters, reached := 0, 0
	for i := range st.Members {
		m := &st.Members[i]
		st.Revision = max(st.Revision, m.Revision)
		m.Leader = m.Reachable && own[i] == leaders[i]
		if m.Leader {
			st.Leader = cmp.Or(m.Name, m.URL)
		}
		if !m.Learning {
			voters++
			if m.Reachable && leaders[i] != 0 {
				reached++
			}
		}
	}
	for i := range st.Members {
		if m := &st.Members[i]; m.Reachable {
			m.Lag = st.Revision - m.Revision
		}
	}
	st.Quorum = st.Leader != "" && 2*reached > voters
	st.Lag = max(0, st.Revision-st.Seen)
}

// members are those that should be there.
func (s *session) members() (all []api.ClusterMember) {
	if s.self.External {
		for _, u := range s.client.Endpoints() {
			all = append(all, api.ClusterMember{URL: u})
		}
		return all
	}
	hosts := s.known.Load().hosts
	for _, id := range slices.Sorted(maps.Keys(hosts)) {
		if r := hosts[id]; r.Member {
			all = append(all, api.ClusterMember{Host: id, Name: r.Name, URL: r.client()})
		}
	}
	if len(all) > 0 {
		slices.SortFunc(all, func(a, b api.ClusterMember) int { return cmp.Compare(a.Name, b.Name) })
		return all
	}
	for _, u := range s.self.Endpoints { // nothing has been read since isled was started
		all = append(all, api.ClusterMember{URL: u})
	}
	return all
}

func (s *session) askMember(ctx context.Context, m *api.ClusterMember) (id, leader uint64) {
	timed, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	resp, err := s.client.Status(timed, m.URL)
	if err != nil {
		m.Error = s.reason(ctx, m.URL, err)
		return 0, 0
	}
	m.Reachable, m.Learning, m.Revision, m.Bytes = true, resp.IsLearner, resp.Header.Revision, resp.DbSize
	m.Full = slices.ContainsFunc(resp.Errors, func(e string) bool { return strings.Contains(e, pb.AlarmType_NOSPACE.String()) })
	return resp.Header.MemberId, resp.Leader
}

// shutOut: a member that was asked, or one that is followed, refuses this host's
// certificate. After a restart of isled that is seen only in how connections end.
func (s *session) shutOut(st api.ClusterStatus) bool {
	return s.refused.Load() || slices.ContainsFunc(st.Members, func(m api.ClusterMember) bool {
		return strings.Contains(m.Error, "was removed from the cluster") || strings.HasPrefix(m.Error, refusal)
	})
}

// problem says in words what is wrong. A wrong clock comes before what follows from it:
// who takes certificates for ended refuses others, or is refused.
func (s *session) problem(st api.ClusterStatus, view fabric.View, skew string) string {
	_, lives := view.Hosts[s.self.ID]
	switch {
	case skew != "":
		return skew
	case s.shutOut(st):
		return "the members refuse this host: it was removed from the cluster (hint: isle cluster leave --force)"
	case time.Now().After(st.CertificateEnd):
		return "the certificate of this host has ended (hint: is its clock right? else isle cluster leave --force, and join again)"
	case !st.Quorum:
		return "there is no quorum: what runs goes on, changes are refused until more members are back"
	case slices.ContainsFunc(st.Members, func(m api.ClusterMember) bool { return m.Full }):
		return "the cluster's memory is full, and changes are refused: members make room for themselves within a minute, as far as what they have is old (hint: isle cluster status says how large they are; docs/cluster.md, Room)"
	case !lives:
		return "the other hosts do not see this one: its lease has ended and is not renewed"
	case len(st.Ignored) > 0:
		return "records of the cluster cannot be read"
	}
	return summary(problems(alive(s.c.tunnels(), view.Hosts)))
}
