package kernel

import (
	"errors"
	"fmt"

	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/tc"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// openGuards loads the guards of bridges; without eBPF there are none.
func (k *Kernel) openGuards() (err error) {
	if k.cfg.BPFDir == "" || k.cfg.NoGuard {
		return nil
	}
	k.guards, err = tc.Open(k.host, k.table.GuardMark())
	if probe.NotSupported(err) {
		k.guards = nil
		k.log.Warn("bridges stand open while the firewall is repaired", "err", err)
		return nil
	}
	k.features.Guard = err == nil
	return err
}

func (k *Kernel) guard(c reconcile.Change) error {
	g := object(c).(netspec.Guard)
	if k.guards == nil {
		return &probe.NotSupportedError{Feature: "guarding bridge " + g.Link, Err: errors.New("eBPF is switched off or not to be had")}
	}
	index, err := k.rt.Index(g.Link)
	if c.New == nil {
		if err != nil {
			return rtnl.Gone(err)
		}
		return k.guards.Delete(k.rt, index)
	}
	if err != nil {
		return err
	}
	return k.guards.Set(k.rt, index, g.Internal)
}

// portGuard is guard for the link of a container.
func (k *Kernel) portGuard(g netspec.PortGuard, now netspec.Object) error {
	if k.guards == nil {
		return &probe.NotSupportedError{Feature: "guarding link " + g.Link, Err: errors.New("eBPF is switched off or not to be had")}
	}
	if now == nil && k.ending[g.NS] {
		return nil // it goes with its link
	}
	index, err := k.rt.Index(g.Link)
	switch {
	case now == nil && err != nil:
		return rtnl.Gone(err)
	case now == nil:
		return k.guards.DeletePort(k.rt, index)
	case err != nil:
		return err
	}
	return k.guards.SetPort(k.rt, index)
}

// readGuards adds those of our bridges and of the links of containers.
func (k *Kernel) readGuards(s netspec.State, c *rtnl.Conn, v rtnl.View) error {
	if k.guards == nil {
		return nil
	}
	for _, l := range v.Links {
		if !k.ours(l) || !l.Up {
			continue
		}
		o, err := k.readGuard(c, l, s)
		if err != nil {
			return fmt.Errorf("guard of link %s: %w", l.Name, err)
		}
		if o != nil {
			s.Add(o)
		}
	}
	return nil
}

// readGuard is the guard of a link, if it has one; s has the link.
func (k *Kernel) readGuard(c *rtnl.Conn, l rtnl.Info, s netspec.State) (netspec.Object, error) {
	link, _ := s[netspec.Link{Name: l.Name}.Key()].(netspec.Link)
	switch {
	case l.Kind == netspec.Bridge:
		on, internal, err := k.guards.Get(c, l.Index)
		if on {
			return netspec.Guard{Link: l.Name, Internal: internal}, err
		}
		return nil, err
	case l.Kind == netspec.Veth && link.PeerNS != "":
		on, err := k.guards.GetPort(c, l.Index)
		if on {
			return netspec.PortGuard{NS: link.PeerNS, Link: l.Name}, err
		}
		return nil, err
	}
	return nil, nil
}
