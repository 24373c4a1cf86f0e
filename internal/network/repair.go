package network

import (
	"context"
	"errors"
	"sync"
	"time"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// settle is how long the machine must be quiet after an alarm before everything
// is looked at once more; settleMost is how long that may be put off.
const (
	settle     = 500 * time.Millisecond
	settleMost = 10 * settle
)

// Run keeps the kernel in step and answers names until ctx is done. It returns
// when all that it serves has ended; the kernel goes on without it.
//
// An alarm is answered at once, by a look at the part of the machine that it is
// about. When the machine is quiet again, and on a timer, everything is looked at.
func (m *Manager) Run(ctx context.Context) error {
	k := newKeeper(m)
	defer k.close()
	var visits sync.WaitGroup
	visits.Go(func() { m.visits(ctx) })
	visits.Go(func() { m.followCluster(ctx) })
	visits.Go(func() { m.scout(ctx) })
	defer visits.Wait()
	for k.step(ctx) {
	}
	for _, id := range m.tenants.all() {
		m.tenants.drop(id)
	}
	if m.DNS != nil {
		m.DNS.Close()
	}
	m.Ports.Close()
	return nil
}

// keeper is the state of Run.
type keeper struct {
	m       *Manager
	changed <-chan reconcile.Alarm
	tick    *time.Ticker
	damage  lane // what is ours
	facts   lane // what plans depend on: others may change that all the time
	quiet   *time.Timer
	putOff  time.Time // everything may be put off until then; zero: it is not due
	retry   time.Duration
}

func newKeeper(m *Manager) *keeper {
	k := &keeper{m: m, changed: m.Changed, tick: time.NewTicker(time.Hour), damage: newLane(), facts: newLane(), quiet: stopped()}
	k.tick.Stop()
	if m.Config.Resync > 0 {
		k.tick.Reset(m.Config.Resync)
	}
	return k
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (k *keeper) close() {
	k.tick.Stop()
	k.damage.timer.Stop()
	k.facts.timer.Stop()
	k.quiet.Stop()
}

// step waits for one thing and does it; false: it is over.
func (k *keeper) step(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-k.tick.C:
		k.everything(ctx)
	case <-k.m.kick:
		k.later()
	case <-k.m.tenants.wake:
		k.m.FollowLeases(ctx)
	case <-k.quiet.C:
		k.everything(ctx)
	case <-k.damage.timer.C:
		k.repair(ctx, &k.damage)
	case <-k.facts.timer.C:
		k.repair(ctx, &k.facts)
	case a, ok := <-k.changed:
		if !ok { // nobody watches any more: the timer is left
			k.changed = nil
			return true
		}
		k.alarm(a)
	}
	return true
}

func (k *keeper) alarm(a reconcile.Alarm) {
	if !a.Single() {
		k.m.alarms.Add(1)
	}
	if a.Facts {
		k.facts.add(reconcile.Alarm{Scope: reconcile.Scope{Facts: true}, By: a.By})
	}
	if a.Facts = false; !a.Empty() {
		k.damage.add(a)
	}
	if !a.Single() { // of single objects it is not known yet whether anybody wants them
		k.later()
	}
}

// later has everything looked at when it is quiet.
func (k *keeper) later() {
	now := time.Now()
	if k.putOff.IsZero() {
		k.putOff = now.Add(settleMost)
	}
	k.quiet.Reset(min(settle, max(k.putOff.Sub(now), 0)))
}

func (k *keeper) repair(ctx context.Context, l *lane) {
	a := l.pending
	l.pending = reconcile.Alarm{}
	begin := time.Now()
	if err := k.m.Repair(ctx, a); err != nil && ctx.Err() == nil {
		k.m.Log.Error("repair what somebody else changed", "err", err)
		k.later()
	}
	l.pace.done(begin, time.Now())
}

func (k *keeper) everything(ctx context.Context) {
	k.quiet.Stop()
	k.putOff = time.Time{}
	err := k.m.Sync(ctx)
	if err == nil || ctx.Err() != nil {
		k.retry = 0
		return
	}
	k.retry = min(max(2*k.retry, retryFirst), retryMost)
	k.quiet.Reset(k.retry)
	k.m.Log.Error("bring the kernel in step with the records", "err", err, "again in", k.retry)
}

// What could not be put right is tried again, after pauses that double.
const (
	retryFirst = 2 * time.Second
	retryMost  = 5 * time.Minute
)

// lane is alarms of one kind that wait for their repair.
type lane struct {
	pending reconcile.Alarm
	pace    pace
	timer   *time.Timer // pending is due
}

func newLane() lane { return lane{timer: stopped()} }

func (l *lane) add(a reconcile.Alarm) {
	waiting := !l.pending.Empty()
	l.pending = l.pending.And(a)
	if !waiting {
		l.timer.Reset(l.pace.wait(time.Now()))
	}
}

// pace is how fast repairs follow each other while somebody goes on undoing them:
// the first at once, then after pauses that double, until repairing takes a
// twentieth of the time: the less a repair costs, the shorter is what stays broken.
type pace struct {
	pause time.Duration
	last  time.Time // the end of the last repair
	cost  time.Duration
}

const (
	pauseFirst = 25 * time.Millisecond
	pauseMost  = 2 * time.Second
	pauseShare = 20
	calm       = 250 * time.Millisecond
)

// wait is how long the next repair has to wait. Nobody is undoing anything when
// it was quiet for twice the last pause.
func (p *pace) wait(now time.Time) time.Duration {
	if p.last.IsZero() || now.Sub(p.last) >= max(calm, 2*p.pause) {
		p.pause = 0
		return 0
	}
	most := min(max(pauseShare*p.cost, pauseFirst), pauseMost)
	p.pause = min(max(2*p.pause, pauseFirst), most)
	return max(p.last.Add(p.pause).Sub(now), 0)
}

func (p *pace) done(begin, end time.Time) { p.last, p.cost = end, end.Sub(begin) }

// Repair puts right the part of the machine that an alarm is about. When that is
// not possible, everything is put right, unit by unit.
func (m *Manager) Repair(ctx context.Context, a reconcile.Alarm) error {
	m.op.Lock()
	defer m.op.Unlock()
	if a.Facts {
		if err := errors.Join(m.relook(ctx), m.warnOverlaps(ctx)); err != nil {
			return err
		}
	}
	if err := m.returnLost(ctx, a); err != nil {
		m.Log.Warn("make again what was deleted", "err", err)
		return m.sync(ctx)
	}
	if a.Facts, a.Lost = false, nil; a.Empty() {
		return nil
	}
	if _, away := m.waiting(); away || len(m.unplanned) > 0 { // a look at a part does not tell what is nobody's
		return m.sync(ctx)
	}
	want, err := m.wanted()
	if err != nil {
		return err
	}
	changes, err := reconcile.SyncSome(ctx, m.Kernel, a.Scope, want)
	m.tellRepair(a.By, changes)
	if err != nil {
		m.Log.Warn("repair a part of the network", "err", err)
		return m.sync(ctx)
	}
	return nil
}

// returnLost makes single objects again that were deleted and are wanted. What we have
// deleted is not; and a look at the whole host finds them anyway.
func (m *Manager) returnLost(ctx context.Context, a reconcile.Alarm) error {
	var changes []reconcile.Change
	for _, k := range a.Lost {
		if o := m.wants(k); o != nil && !a.Host {
			changes = append(changes, reconcile.Change{Key: k, New: o})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	m.alarms.Add(1)
	m.resync()
	m.tellRepair(a.By, changes)
	return reconcile.Apply(ctx, m.Kernel, changes)
}

// wants is the object with a key that is to be there; nil: none is.
func (m *Manager) wants(k netspec.Key) netspec.Object {
	for _, s := range m.units {
		if o, ok := s[k]; ok {
			return o
		}
	}
	return nil
}

// tellEvery is how often repairs are told of, at most.
const tellEvery = 2 * time.Second

func (m *Manager) tellRepair(by string, changes []reconcile.Change) {
	if len(changes) == 0 {
		return
	}
	m.repairs++
	if now := time.Now(); now.Sub(m.told) >= tellEvery {
		m.Log.Warn("somebody else changed what is ours: it is put right", "by", by, "changes", len(changes), "first", changes[0].String(),
			"repairs", m.repairs, "alarms", m.alarms.Load())
		m.told = now
	}
}

// Alarms is how often somebody else has touched what may be ours since the start.
func (m *Manager) Alarms() uint64 { return m.alarms.Load() }

// relook reads the facts again. What follows from new ones is changed where it
// stands: nothing else needs to be looked at.
func (m *Manager) relook(ctx context.Context) error {
	before := m.host
	if err := m.look(ctx); err != nil || m.same(m.host, before) {
		return err
	}
	m.tellUplinks(before)
	have, err := m.wanted()
	if err != nil {
		return err
	}
	m.replan()
	want, err := m.wanted()
	if err != nil {
		return err
	}
	changes := m.certain(reconcile.Diff(have, want))
	m.Log.Info("the host has changed", "mtu", m.host.MTU, "changes", len(changes))
	if err := reconcile.Apply(ctx, m.Kernel, changes); err != nil {
		m.Log.Warn("follow a change of the host", "err", err)
		return m.sync(ctx)
	}
	return nil
}
