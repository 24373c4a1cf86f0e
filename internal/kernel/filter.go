package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"

	"isle/internal/kernel/nft"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// filter makes changes of ports and redirects: the redirects one by one, then
// all else as one batch of nftables. When one fails, those behind it are taken
// back, and those before it are in force.
func (k *Kernel) filter(ctx context.Context, cs []reconcile.Change) (done int, err error) {
	var batch []reconcile.Change
	var of []int // index in cs
	for i, c := range cs {
		switch object(c).(type) {
		case netspec.Loopback, netspec.DNSRedirect, netspec.PortGuard:
		default:
			batch, of = append(batch, c), append(of, i)
		}
	}
	for i, c := range cs {
		if err := k.redirectChange(c); err != nil {
			return k.filterBefore(ctx, cs, i, i, err)
		}
	}
	if len(batch) == 0 {
		return len(cs), nil
	}
	if failed, err := k.table.Apply(ctx, batch); err != nil {
		return k.filterBefore(ctx, cs, of[failed], len(cs), err)
	}
	k.forget(batch)
	return len(cs), nil
}

// filterBefore leaves the changes before failed in force, and none else. made
// is how many redirects were made.
func (k *Kernel) filterBefore(ctx context.Context, cs []reconcile.Change, failed, made int, err error) (int, error) {
	for i := made - 1; i >= failed; i-- {
		if uerr := k.redirectChange(cs[i].Undo()); uerr != nil {
			err = errors.Join(err, fmt.Errorf("take back: %w", uerr))
		}
	}
	if failed == 0 {
		return 0, err
	}
	n, ferr := k.filter(ctx, cs[:failed])
	return n, errors.Join(err, ferr)
}

// redirectChange makes a change of a redirect, or of a guard of a port; others it
// leaves alone.
func (k *Kernel) redirectChange(c reconcile.Change) error {
	switch o := object(c).(type) {
	case netspec.Loopback:
		if k.redirect == nil {
			return &probe.NotSupportedError{Feature: "redirecting connections to " + o.HostIP.String(), Err: errors.New(k.features.SockAddrError)}
		}
		return k.redirectLoopback(c)
	case netspec.DNSRedirect:
		return k.redirectDNS(o, c.New)
	case netspec.PortGuard:
		return k.portGuard(o, c.New)
	}
	return nil
}

// redirectLoopback takes the old away first only when it is of another length:
// else the new takes its place, and there is no moment without.
func (k *Kernel) redirectLoopback(c reconcile.Change) error {
	old, had := c.Old.(netspec.Loopback)
	now, ok := c.New.(netspec.Loopback)
	if had && (!ok || old.Count != now.Count) {
		if err := k.redirect.DelLoopback(k.cookie, old); err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	return k.redirect.SetLoopback(k.cookie, now)
}

func (k *Kernel) redirectDNS(d netspec.DNSRedirect, now netspec.Object) error {
	if k.redirect == nil {
		return k.nftDNS(d, now)
	}
	cookie, ok := k.memory.cookie(d.NS)
	if !ok {
		var err error
		cookie, err = k.ns.Cookie(string(d.NS))
		if errors.Is(err, os.ErrNotExist) && now == nil {
			return nil
		}
		if err != nil {
			return err
		}
		k.memory.setCookie(d.NS, cookie)
	}
	if now == nil {
		return k.redirect.DelDNS(cookie)
	}
	return k.redirect.SetDNS(cookie, d.Port)
}

func (k *Kernel) nftDNS(d netspec.DNSRedirect, now netspec.Object) error {
	f, err := k.open(d.NS)
	if errors.Is(err, os.ErrNotExist) && now == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if now == nil {
		return nft.DelDNS(f, k.dnsTable())
	}
	return nft.SetDNS(f, k.dnsTable(), d.Port)
}

func (k *Kernel) dnsTable() string { return k.cfg.Table + "-dns" }

// dnsPort reads the redirect of a namespace's resolver; 0: there is none.
func (k *Kernel) dnsPort(f *os.File, cookie uint64) (uint16, error) {
	if k.redirect == nil {
		return nft.DNS(f, k.dnsTable())
	}
	return k.redirect.DNS(cookie)
}
