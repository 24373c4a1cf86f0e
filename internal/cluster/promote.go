package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/door"
	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/store"
)

// This file is about the place of a member that has left. The host that has been in the
// cluster longest takes it: it asks a door for the key that members have and for a seat
// among them, starts its etcd as one that learns, and gets its say when it has caught up.
// Whoever comes too late finds the place taken: it is taken in a transaction. A host that
// cannot do it steps down again, and the next one tries.

var errComplete = fmt.Errorf("the cluster has all its members: %w", errdefs.ErrConflict)

// every is how often a host looks whether a member is missing; attempt is how long one has
// to become a member, before the next one tries. Nothing of that is in a hurry.
func (c *Cluster) growth() (every, attempt time.Duration) {
	if c.Fast {
		return 50 * time.Millisecond, 5 * time.Second
	}
	return 5 * time.Second, 90 * time.Second
}

// grow looks after this host's part in who is a member, until its session ends.
func (c *Cluster) grow(ctx context.Context, s *session) {
	if s.self.Learning {
		c.haveSay(ctx, s)
	}
	if s.self.Member {
		return
	}
	every, attempt := c.growth()
	var missing time.Time // since when one is
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		turn, due := s.turn(ctx)
		switch now := time.Now(); {
		case !due:
			missing = time.Time{}
		case missing.IsZero():
			missing = now
		case now.Sub(missing) >= time.Duration(turn)*attempt:
			if c.becomeMember(ctx, s) {
				return
			}
			missing = now
		}
	}
}

// turn is how many hosts come before this one when a member is missing; due: one is. Who
// could not become one comes last.
func (s *session) turn(ctx context.Context) (turn int, due bool) {
	if s.known.Load().hosts[s.self.ID].Member { // there is a seat to give back
		return 0, true
	}
	if s.missing(ctx) == 0 {
		return 0, false
	}
	all := s.next()
	if s.unseated.Load() != nil {
		return len(all), true
	}
	turn = slices.Index(all, s.self.ID)
	return turn, turn >= 0
}

// missing is how many members there should be more, as far as is known.
func (s *session) missing(ctx context.Context) int {
	all := s.known.Load().hosts
	if len(all) == 0 {
		return 0
	}
	have := 0
	for _, r := range all {
		if r.Member {
			have++
		}
	}
	return max(s.wantedMembers(ctx)-have, 0)
}

// wantedMembers is what the cluster was made with; 0: it cannot be read now.
func (s *session) wantedMembers(ctx context.Context) int {
	if n := s.wanted.Load(); n != 0 {
		return int(n)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var a about
	if s.store.View(ctx, func(tx store.Tx) (err error) { a, err = clusters.Get(tx, aboutKey); return err }) == nil {
		s.wanted.Store(int64(a.Members))
	}
	return a.Members
}

// vacancy says why a member is missing although there are hosts that could be one.
func (s *session) vacancy(ctx context.Context) string {
	missing := s.missing(ctx)
	all := s.known.Load().hosts
	members := int(s.wanted.Load()) - missing
	switch text := s.unseated.Load(); {
	case missing > 0 && text != nil:
		return "this host should become a member of the cluster and cannot: " + *text
	case missing > 0 && members < len(all) && len(s.next()) == 0:
		return fmt.Sprintf("the cluster has %d members of %d, and no host that could become one is alive (hint: isle cluster join on another host)", members, s.wanted.Load())
	}
	return ""
}

// next are the hosts that could become members, alive and in the order in which they
// joined.
func (s *session) next() (ids []string) {
	alive, all := s.directory.View().Hosts, s.known.Load().hosts
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if _, lives := alive[id]; lives && !all[id].Member {
			ids = append(ids, id)
		}
	}
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(all[a].Joined, all[b].Joined) })
	return ids
}

// becomeMember takes the place that is free. It reports whether s has ended by that.
func (c *Cluster) becomeMember(ctx context.Context, s *session) bool {
	c.verb.Lock()
	defer c.verb.Unlock()
	if c.session.Load() != s || ctx.Err() != nil {
		return true
	}
	if s.known.Load().hosts[s.self.ID].Member { // isled ended on the way, or an answer was lost
		if err := s.giveSeatBack(ctx); err != nil {
			s.trouble(err)
		}
		return false
	}
	ans, err := s.askForSeat(ctx)
	switch {
	case errdefs.IsConflict(err), errdefs.IsAborted(err): // somebody else was faster, or is about to
		return false
	case err == nil:
		err = s.seatFiles(ans)
	}
	if err != nil {
		s.trouble(err)
		return false
	}
	return c.reopen(s, func(v *self) { v.Member, v.Learning, v.Peers = true, !v.External, ans.Peers })
}

// askForSeat asks one door after another.
func (s *session) askForSeat(ctx context.Context) (ans door.JoinAnswer, err error) {
	var failed []error
	for _, d := range s.openDoors() {
		if ans, err = door.Promote(ctx, d, s.identity); err == nil || !errdefs.IsUnavailable(err) {
			return ans, err
		}
		failed = append(failed, fmt.Errorf("%s: %w", d, err))
	}
	return ans, errors.Join(append(failed, fmt.Errorf("no host lets this one be a member: %w", errdefs.ErrUnavailable))...)
}

// seatFiles are a member's. What there is of an etcd is from an attempt that failed.
func (s *session) seatFiles(ans door.JoinAnswer) error {
	return errors.Join(os.RemoveAll(member.DataDir(s.c.Dir)), pki.WriteFile(s.path(unlockFile), ans.Unlock))
}

func (s *session) trouble(err error) {
	s.log.Error("this host should become a member of the cluster and cannot", "error", err)
	text := err.Error()
	s.unseated.Store(&text)
}

// reopen ends a session and goes on with another one, as a new isled would: with the same
// lease, so that the others see nothing of it. verb is held.
func (c *Cluster) reopen(s *session, change func(*self)) bool {
	ctx := c.life
	if err := c.changeSelf(context.WithoutCancel(ctx), change); err != nil {
		s.trouble(err)
		return false
	}
	v, err := c.self(context.WithoutCancel(ctx))
	if err != nil {
		s.trouble(err)
		return false
	}
	now, err := c.open(v)
	if err != nil {
		s.trouble(err)
		return false
	}
	s.close()
	now.unseated.Store(s.unseated.Load())
	c.enter(now)
	return true
}

// haveSay waits until the etcd of this host, which learns, has caught up, and gives it its
// say. When that does not come about the host goes back to being none.
func (c *Cluster) haveSay(ctx context.Context, s *session) {
	_, attempt := c.growth()
	timed, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	err := s.stopLearning(timed)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		if err := c.changeSelf(ctx, func(v *self) { v.Learning = false }); err != nil {
			s.log.Error("write down that this host is a member", "error", err)
		}
		s.unseated.Store(nil)
		s.log.Info("this host is a member of the cluster")
		return
	}
	s.trouble(err)
	c.stepDown(ctx, s)
}

// stopLearning tries until the etcd of this host votes.
func (s *session) stopLearning(ctx context.Context) error {
	for {
		err := s.vote(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its etcd does not catch up with the others: %w: %w", err, errdefs.ErrUnavailable)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// vote gives the etcd of this host its say, unless it has it.
func (s *session) vote(ctx context.Context) error {
	list, err := s.client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, m := range list.Members {
		switch {
		case m.Name == s.self.ID && m.IsLearner:
			_, err := s.client.MemberPromote(ctx, m.ID)
			return err
		case m.Name == s.self.ID:
			return nil
		}
	}
	return errors.New("it is not there")
}

// stepDown makes this host one that is no member again.
func (c *Cluster) stepDown(ctx context.Context, s *session) {
	c.verb.Lock()
	defer c.verb.Unlock()
	if c.session.Load() != s || ctx.Err() != nil {
		return
	}
	if err := s.giveSeatBack(ctx); err != nil {
		s.trouble(err)
	}
	c.reopen(s, func(v *self) { v.Member, v.Learning, v.Peers = false, false, "" })
	if err := errors.Join(os.RemoveAll(member.DataDir(c.Dir)), os.RemoveAll(filepath.Join(c.Dir, unlockFile))); err != nil {
		s.log.Error("remove a member's files", "error", err)
	}
}

// giveSeatBack tells the others that this host is no member.
func (s *session) giveSeatBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if !s.self.External {
		if err := s.removeMember(ctx, s.self.ID); err != nil {
			return err
		}
	}
	return s.seat(ctx, s.self.ID, false)
}

// seat writes down whether a host is a member.
func (s *session) seat(ctx context.Context, host string, is bool) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		r, err := hosts.Get(tx, host)
		if err != nil {
			return err
		}
		r.Member = is
		return hosts.Put(tx, host, r)
	})
}

// Promote implements door.Clerk.
func (s *session) Promote(ctx context.Context, host string) (ans door.JoinAnswer, err error) {
	s.doorMu.Lock()
	defer s.doorMu.Unlock()
	r, err := s.takeSeat(ctx, host)
	if err != nil {
		return ans, err
	}
	ans = door.JoinAnswer{Cluster: s.self.Cluster, ID: r.ID, External: s.self.External, Member: true}
	if err := s.invite(ctx, r, &ans); err != nil {
		return ans, errors.Join(err, s.seat(context.WithoutCancel(ctx), host, false))
	}
	return ans, nil
}

// takeSeat makes a host a member in the records, if one is missing.
func (s *session) takeSeat(ctx context.Context, host string) (r record, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		a, err := clusters.Get(tx, aboutKey)
		if err != nil {
			return err
		}
		if r, err = hosts.Get(tx, host); err != nil {
			return fmt.Errorf("host %s is not in the cluster: %w", host, errdefs.ErrPermissionDenied)
		}
		if r.Member || memberCount(tx) >= a.Members {
			return errComplete
		}
		r.Member = true
		return hosts.Put(tx, host, r)
	})
	return r, err
}
