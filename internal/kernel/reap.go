package kernel

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/rtnl"
)

// grace is what the kernel gets to take the links of a deleted namespace away.
const grace = time.Second

// reaper looks after links that should have died with their namespace. The
// namespace lives on while a socket in it does, also one without a process: a
// connection that still waits for the other side to acknowledge its end holds
// it for minutes. Its link would stay a port of the bridge for as long.
//
// One worker at a time, behind the back of those who delete.
type reaper struct {
	check func(names []string) (left []string, err error)
	log   *slog.Logger
	stop  chan struct{}
	once  sync.Once // stop is closed once

	mu      sync.Mutex
	running bool
	names   []string
	wg      sync.WaitGroup
}

func (r *reaper) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, name)
	if !r.running {
		r.running = true
		r.wg.Go(r.work)
	}
}

func (r *reaper) work() {
	for {
		select {
		case <-time.After(grace):
		case <-r.stop:
			return // what is left is a stray for the next Observe
		}
		r.mu.Lock()
		names := r.names
		r.names, r.running = nil, len(r.names) > 0
		r.mu.Unlock()
		if len(names) == 0 {
			return
		}
		left, err := r.check(names)
		if err != nil {
			r.log.Warn("links that outlive their namespaces", "err", err)
		}
		r.mu.Lock()
		r.names = append(r.names, left...)
		r.mu.Unlock()
	}
}

func (r *reaper) close() {
	r.once.Do(func() { close(r.stop) })
	r.wg.Wait()
}

// reapLinks deletes those of names that are still there and still expected to go. What
// could not be is left: Observe does not see it while it is expected to go.
func (k *Kernel) reapLinks(names []string) (left []string, err error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return names, err
	}
	defer c.Close()
	for _, name := range names {
		if nerr := k.reapName(c, name); nerr != nil {
			left, err = append(left, name), errors.Join(err, nerr)
		}
	}
	return left, err
}

func (k *Kernel) reapName(c *rtnl.Conn, name string) error {
	have, err := c.Link(name)
	switch {
	case errors.Is(err, unix.ENODEV):
		k.memory.isDying(name, true)
	case err != nil:
		return err
	case k.mark.Ours(have.Group, have.Name):
		return k.reapLink(c, name)
	}
	return nil
}

// reapLink holds the lock of Apply, which may be making a link of that name anew.
func (k *Kernel) reapLink(c *rtnl.Conn, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.memory.isDying(name, false) {
		return nil
	}
	if err := c.Do(rtnl.DelLink(name)); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	k.memory.isDying(name, true)
	return nil
}
