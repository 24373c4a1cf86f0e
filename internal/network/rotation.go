package network

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/network/seal"
)

// This file changes the key of this host's encrypted tunnels for another without losing a
// frame. The new key gets a link of its own beside the old one's, and the others are told
// of both. Whoever has shaken hands with the new key sends to its link, this host sends by
// it to whoever has shaken hands with it, and frames are taken from both. When all have
// come over, the others are told of the new key alone; when they have had the time to hear
// that, the old one is forgotten and its link goes.
//
// Where a rotation is follows from the file of the keys and from what the cluster says of
// this host, so it goes on after a crash; at worst it is longer.

const (
	rotateEvery = 500 * time.Millisecond
	// followLimit is how long the others have to come over. Who has not by then is cut off
	// until it hears of the new key.
	followLimit = 10 * time.Minute
	// openAfter is how long others have to hear of a new key.
	openAfter = time.Second
	// settleGrace is how long frames may be underway by an old way after there is a newer one.
	settleGrace = 5 * time.Second
	// partGrace is how long after the cluster was told a host that is alive may still use
	// the old key, besides its lease: after that it would be dead.
	partGrace = 5 * time.Second
	// lifeSpread is the part of a key's life in which it ends, so that not all do at once.
	lifeSpread = 4
)

// seals are this host's keys, and how far others have come over to new ones.
type seals struct {
	keys   []seal.Key     // the newest first
	shaken map[shake]bool // that have been
	told   time.Time      // since when the cluster has the newest; zero: it has not
	open   bool           // the others have had the time to hear of it
	came   time.Time      // since when all have shaken hands with the new key; zero: they have not
	left   time.Time      // since when the others are told of the new key alone; zero: they are not
}

// shake is a handshake of a link here with a key of another host.
type shake struct{ link, key string }

// passage is the one to a host by the newest keys of both that have shaken hands. Until there
// are any, it is by the oldest: they were in use before there were others.
func (m *Manager) passage(h fabric.Host) Passage {
	mine, theirs := m.sealKeys(), m.keysOf(h)
	if len(mine) == 0 || len(theirs) == 0 {
		return Passage{}
	}
	for _, k := range mine {
		for _, t := range theirs {
			if m.cluster.seals.shaken[shake{m.linkOf(k), t.public}] {
				return Passage{m.linkOf(k), SealedAddr(h.ID, t.public)}
			}
		}
	}
	return Passage{m.linkOf(mine[len(mine)-1]), SealedAddr(h.ID, theirs[len(theirs)-1].public)}
}

// rotateKeys goes on with what is to be done, step by step.
func (m *Manager) rotateKeys(ctx context.Context) {
	for ctx.Err() == nil {
		if err := m.Rotate(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("change the key of encrypted tunnels", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rotateEvery):
		}
	}
}

// Rotate takes newer ways to other hosts that have opened, and goes on with a change of
// this host's key, or begins one that is due. Run calls it.
func (m *Manager) Rotate(ctx context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	keys := m.sealKeys()
	if !m.cluster.known || m.cluster.far.self == "" || len(keys) == 0 {
		return nil
	}
	m.openNew(ctx, keys)
	err := m.comeOver(ctx)
	switch {
	case len(keys) == 1 && m.due(keys[0]):
		return errors.Join(err, m.renew(ctx))
	case len(keys) == 1:
		return err
	}
	return errors.Join(err, m.handOver(ctx, keys))
}

// openNew has this host shake hands by the link of a new key, when the others have had the
// time to hear of it.
func (m *Manager) openNew(ctx context.Context, keys []seal.Key) {
	c := &m.cluster.seals
	switch {
	case c.open || len(keys) == 1:
	case m.cluster.here.Key != keys[0].Public:
		c.told = time.Time{}
	case c.told.IsZero():
		c.told = m.now()
	case m.now().Sub(c.told) >= openAfter:
		c.open = true
		m.impose(ctx, m.sealUnits())
	}
}

// comeOver looks which keys have shaken hands, and has frames take the ways that are newer.
func (m *Manager) comeOver(ctx context.Context) error {
	if !m.comingOver() {
		return nil
	}
	before, n := map[string]Passage{}, newNews()
	for id, h := range m.cluster.far.hosts {
		before[id] = m.passage(h)
	}
	err := m.lookAtShakes(ctx)
	for id, h := range m.cluster.far.hosts {
		if m.passage(h) != before[id] {
			m.cluster.far.touch(id, n)
		}
	}
	m.replanFar(ctx, n)
	return err
}

// comingOver reports whether there is a newer way than the one to some host.
func (m *Manager) comingOver() bool {
	mine := m.sealKeys()
	for id, h := range m.cluster.far.hosts {
		theirs := m.keysOf(h)
		if id == m.cluster.far.self || len(mine)*len(theirs) < 2 || !m.meets(id) {
			continue
		}
		if !m.cluster.seals.shaken[shake{m.linkOf(mine[0]), theirs[0].public}] {
			return true
		}
	}
	return false
}

// lookAtShakes notes which handshakes there were. One counts for as long as its keys are
// there: when the session ends there will be another before anything is sent.
func (m *Manager) lookAtShakes(ctx context.Context) (err error) {
	for _, k := range m.sealKeys() {
		link := m.linkOf(k)
		at, lerr := m.Machine.Handshakes(ctx, link)
		err = errors.Join(err, lerr)
		for key := range at {
			m.cluster.seals.shaken[shake{link, key}] = true
		}
	}
	return err
}

// due reports whether a key is as old as it may be. When that is, differs from key to key.
func (m *Manager) due(k seal.Key) bool {
	life := m.Config.KeyLife
	if life <= 0 {
		return false
	}
	h := sha256.Sum256([]byte(k.Public))
	early := float64(binary.BigEndian.Uint32(h[:])) / math.MaxUint32 * float64(life/lifeSpread)
	return m.now().Sub(k.Made) >= life-time.Duration(early)
}

func (m *Manager) now() time.Time {
	if m.Now != nil {
		return m.Now()
	}
	return time.Now()
}

// RotateKey begins to change this host's key for another. Class Conflict: it is being
// changed already.
func (m *Manager) RotateKey(ctx context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	if err := m.keyed(); err != nil {
		return err
	}
	return m.renew(ctx)
}

// keyed reports why there is no key to tell of.
func (m *Manager) keyed() error {
	switch {
	case m.cluster.far.self == "":
		return ErrNoCluster
	case len(m.sealKeys()) == 0:
		return fmt.Errorf("this host has no key for encrypted networks: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// renew makes a key, and its link where one is needed. What the kernel refuses is taken
// back: the key that there is goes on.
func (m *Manager) renew(ctx context.Context) error {
	if err := m.Seal.Renew(); err != nil {
		return err
	}
	m.rekeyed()
	if err := m.relook(ctx); err != nil {
		err = fmt.Errorf("make a link for another key: %w", err)
		return errors.Join(err, m.forgetKey(ctx, m.sealKeys()[0].Public))
	}
	m.Log.Info("this host has another key for encrypted tunnels; the others come over to it", "key", m.sealKeys()[0].Public)
	m.restoreSoon()
	return nil
}

// handOver leaves the old key when all have come over, and forgets it when they have had
// the time to hear that.
func (m *Manager) handOver(ctx context.Context, keys []seal.Key) error {
	c := &m.cluster.seals
	told := m.cluster.here.Key == keys[0].Public && m.cluster.here.OldKey == ""
	switch {
	case c.left.IsZero() && !m.followed(keys):
		c.came = time.Time{}
	case c.came.IsZero():
		c.came = m.now()
	case c.left.IsZero() && m.now().Sub(c.came) >= settleGrace:
		c.left = m.now()
		m.restoreSoon()
	case c.left.IsZero():
	case !told:
		c.left = m.now() // their time begins when it is written down
	case m.now().Sub(c.left) >= m.Config.HostLease+partGrace:
		return m.forgetKey(ctx, keys[1].Public)
	}
	return nil
}

// followed reports whether all that there may be something to say to have shaken hands
// with the new key; some, when it took too long.
func (m *Manager) followed(keys []seal.Key) bool {
	came, missing := m.came(keys[0])
	return missing == 0 || came > 0 && m.now().Sub(keys[0].Made) > followLimit
}

// came counts the hosts that there may be something to say to: those that have shaken
// hands with a key of ours, and those that have not.
func (m *Manager) came(key seal.Key) (came, missing int) {
	for id, h := range m.cluster.far.hosts {
		switch {
		case id == m.cluster.far.self || len(m.keysOf(h)) == 0 || !m.meets(id):
		case m.hasShaken(key, h):
			came++
		default:
			missing++
		}
	}
	return came, missing
}

func (m *Manager) hasShaken(mine seal.Key, h fabric.Host) bool {
	for _, k := range m.keysOf(h) {
		if m.cluster.seals.shaken[shake{m.linkOf(mine), k.public}] {
			return true
		}
	}
	return false
}

// forgetKey ends a key, and its link with it.
func (m *Manager) forgetKey(ctx context.Context, public string) error {
	if err := m.Seal.Forget(public); err != nil {
		return err
	}
	m.rekeyed()
	m.restoreSoon()
	m.Log.Info("a key of this host for encrypted tunnels is forgotten", "key", public)
	return m.relook(ctx)
}

// rekeyed reads the keys again. What a link that is gone has shaken counts no more.
func (m *Manager) rekeyed() {
	c := &m.cluster.seals
	c.keys, c.told, c.open, c.came, c.left = nil, time.Time{}, false, time.Time{}, time.Time{}
	links := map[string]bool{}
	for _, k := range m.sealKeys() {
		links[m.linkOf(k)] = true
	}
	for s := range c.shaken {
		if !links[s.link] {
			delete(c.shaken, s)
		}
	}
}

// KeyState is this host's key for encrypted tunnels.
type KeyState struct {
	Public string
	Made   time.Time
	Port   uint16
	Old    string // the key before, which is not forgotten yet; "": there is none
	Coming int    // hosts that have not come over from it yet
}

// KeyState says how it is with this host's key. Class Unavailable: there is none.
func (m *Manager) KeyState() (s KeyState, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	if err := m.keyed(); err != nil {
		return s, err
	}
	keys := m.sealKeys()
	s = KeyState{Public: keys[0].Public, Made: keys[0].Made, Port: m.portOf(keys[0])}
	if len(keys) > 1 {
		s.Old = keys[1].Public
		_, s.Coming = m.came(keys[0])
	}
	return s, nil
}
