package kernel

import (
	"errors"

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
	k.guards, err = tc.Open(k.table.GuardMark())
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

// readGuards adds those of our bridges.
func (k *Kernel) readGuards(s netspec.State, c *rtnl.Conn, v rtnl.View) error {
	if k.guards == nil {
		return nil
	}
	for _, l := range v.Links {
		if l.Kind != netspec.Bridge || !k.mark.Ours(l.Group, l.Name) {
			continue
		}
		on, internal, err := k.guards.Get(c, l.Index)
		if err != nil {
			return err
		}
		if on {
			s.Add(netspec.Guard{Link: l.Name, Internal: internal})
		}
	}
	return nil
}
