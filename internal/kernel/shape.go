package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// shape holds a link back, or lets it go.
func (k *Kernel) shape(c reconcile.Change) error {
	s := object(c).(netspec.Shape)
	f, err := k.open(s.NS)
	if errors.Is(err, os.ErrNotExist) && c.New == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := rtnl.Open(f)
	if err != nil {
		return err
	}
	defer conn.Close()
	index, err := conn.Index(s.Link)
	switch {
	case err != nil && c.New == nil:
		return rtnl.Gone(err)
	case err != nil:
		return err
	case c.New == nil:
		return unshaped(conn.Do(rtnl.DelShape(index)))
	}
	err = conn.Do(rtnl.SetShape(index, s))
	if errors.Is(err, unix.ENOENT) {
		return &probe.NotSupportedError{Feature: "holding link " + s.Link + " back (module sch_tbf)", Err: err}
	}
	return err
}

// unshaped: what is not there, or has become somebody else's, is not ours to delete.
func unshaped(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// readShapes adds those of a namespace. As long as no link has been held back nobody
// looks, but once, at the start.
func (k *Kernel) readShapes(s netspec.State, ns netspec.NS, c *rtnl.Conn, v rtnl.View) error {
	if !k.memory.mayBeShaped(ns) {
		return nil
	}
	shapes, err := c.Shapes()
	if err != nil {
		return fmt.Errorf("read queueing disciplines: %w", err)
	}
	for index, o := range shapes {
		l := v.Links[index]
		if ns == "" && !k.ours(l) {
			continue
		}
		o.NS, o.Link = ns, l.Name
		s.Add(o)
		k.memory.note(o.Key(), o)
	}
	k.memory.sawShapes(ns)
	return nil
}
