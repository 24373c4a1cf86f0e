package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/wg"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// seals are the WireGuard links: of the kernel, or of this process where it has none.
type seals struct {
	conn  *wg.Conn // nil: not opened yet, or the kernel has none
	users map[string]*wg.User
}

func (s *seals) close() (err error) {
	if s.conn != nil {
		err = s.conn.Close()
	}
	for _, u := range s.users {
		err = errors.Join(err, u.Close())
	}
	return err
}

// wireguard makes, changes or deletes a WireGuard link.
func (k *Kernel) wireguard(c reconcile.Change) error {
	w, ok := c.New.(netspec.WireGuard)
	if !ok {
		return k.deleteWireGuard(c.Key.ID)
	}
	private, err := k.secret(w.Public)
	if err != nil {
		return fmt.Errorf("make WireGuard link %s: %w", w.Name, err)
	}
	if err := k.makeWireGuard(w, private); err != nil {
		return errors.Join(fmt.Errorf("make WireGuard link %s: %w", w.Name, err), k.deleteWireGuard(w.Name))
	}
	return nil
}

func (k *Kernel) secret(public string) (private [wg.KeyLen]byte, err error) {
	if k.cfg.Secret == nil {
		return private, fmt.Errorf("nobody knows the private key: %w", errdefs.ErrUnavailable)
	}
	return k.cfg.Secret(public)
}

// makeWireGuard makes a link, unless it is there, and sets it up. It comes up last.
func (k *Kernel) makeWireGuard(w netspec.WireGuard, private [wg.KeyLen]byte) error {
	have, err := k.rt.Link(w.Name)
	switch {
	case err == nil && (have.Group != k.mark.Group || have.Kind != wg.Kind && have.Kind != wg.KindUser):
		return foreign(w.Name, nil)
	case rtnl.Gone(err) != nil:
		return err
	case err != nil:
		err = k.newWireGuard(w)
	case have.Kind == wg.KindUser && k.seals.users[w.Name] == nil:
		err = k.openUser(w, true)
	}
	if err != nil {
		return err
	}
	if err := k.configure(w, private); err != nil {
		return err
	}
	index, err := k.rt.Index(w.Name)
	if err != nil {
		return err
	}
	if err := netns.Visit(k.host, func() error { return quiet(w.Name, true) }); err != nil {
		return err
	}
	errs, err := k.rt.Execute(rtnl.SetMTU(index, w.MTU), rtnl.Up(index))
	return errors.Join(append(errs, err)...)
}

// newWireGuard makes a link of the kernel's, or of this process.
func (k *Kernel) newWireGuard(w netspec.WireGuard) error {
	k.rt.Forget()
	if !k.cfg.UserWireGuard {
		err := k.rt.Do(rtnl.NewWireGuard(w, k.mark))
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return k.openUser(w, false)
}

// openUser makes a link of this process, or resumes that of one before it.
func (k *Kernel) openUser(w netspec.WireGuard, resumes bool) error {
	var u *wg.User
	if err := netns.Do(k.host, func() (err error) { u, err = wg.NewUser(w.Name, w.MTU, resumes); return err }); err != nil {
		return &probe.NotSupportedError{Feature: "encrypting tunnels (module wireguard, or /dev/net/tun)", Err: err}
	}
	k.seals.users[w.Name] = u
	index, err := k.rt.Index(w.Name)
	if err == nil {
		err = k.rt.Do(k.mark.Set(index))
	}
	return err
}

func (k *Kernel) configure(w netspec.WireGuard, private [wg.KeyLen]byte) error {
	if u := k.seals.users[w.Name]; u != nil {
		public, err := wg.ParseKey(w.Public)
		if err != nil {
			return err
		}
		return netns.Do(k.host, func() error { return u.Configure(private, public, w.Port) })
	}
	c, err := k.wgConn()
	if err != nil {
		return err
	}
	return c.Configure(w.Name, private, w.Port)
}

func (k *Kernel) wgConn() (*wg.Conn, error) {
	if k.seals.conn == nil {
		if err := netns.Visit(k.host, func() (err error) { k.seals.conn, err = wg.Open(); return err }); err != nil {
			return nil, err
		}
	}
	return k.seals.conn, nil
}

// Handshakes says when the last one was with each peer of a WireGuard link, by its public
// key; of those without one nothing. No link is no error: nobody is there.
func (k *Kernel) Handshakes(_ context.Context, link string) (map[string]time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, err := k.wgDevice(link)
	if err != nil && !errors.Is(err, wg.ErrNone) {
		return nil, rtnl.Gone(err)
	}
	out := map[string]time.Time{}
	for _, p := range d.Peers {
		if !p.Shaken.IsZero() {
			out[wg.FormatKey(p.Key)] = p.Shaken
		}
	}
	return out, nil
}

// wgDevice is how a WireGuard link is set up, and what it does.
func (k *Kernel) wgDevice(link string) (wg.Device, error) {
	if u := k.seals.users[link]; u != nil {
		return u.Read()
	}
	c, err := k.wgConn()
	if err != nil {
		return wg.Device{}, err
	}
	return c.Read(link)
}

func (k *Kernel) deleteWireGuard(name string) error {
	var err error
	if u := k.seals.users[name]; u != nil {
		delete(k.seals.users, name)
		err = u.Close()
	}
	return errors.Join(err, k.deleteLinks([]netspec.Link{{Name: name}}))
}

// peer adds, changes or removes who may be at the other end.
func (k *Kernel) peer(c reconcile.Change) error {
	p := object(c).(netspec.Peer)
	if old, ok := c.Old.(netspec.Peer); ok && c.New != nil && old.Allowed != p.Allowed {
		if err := k.peer(reconcile.Change{Key: c.Key, Old: old}); err != nil {
			return err
		}
	}
	key, err := wg.ParseKey(p.Public)
	if err != nil {
		return err
	}
	to := wg.Peer{Key: key, At: p.At, Allowed: netip.PrefixFrom(p.Allowed, p.Allowed.BitLen()), Awake: p.Awake}
	u := k.seals.users[p.Link]
	switch {
	case u != nil && c.New == nil:
		return u.Remove(key)
	case u != nil:
		return u.Add(to)
	}
	conn, err := k.wgConn()
	if errors.Is(err, wg.ErrNone) && c.New == nil {
		return nil
	}
	switch {
	case err != nil:
		return err
	case c.New == nil:
		return rtnl.Gone(conn.Remove(p.Link, key))
	}
	return conn.Add(p.Link, to)
}

// readWireGuard adds a link and its peers.
func (k *Kernel) readWireGuard(s netspec.State, l rtnl.Info) error {
	if l.Kind == wg.KindUser && k.seals.users[l.Name] == nil {
		s.Add(netspec.WireGuard{Name: l.Name, MTU: int(l.MTU)}) // it encrypts nothing: no process has it open
		return nil
	}
	d, err := k.wgDevice(l.Name)
	if err != nil {
		return err
	}
	s.Add(netspec.WireGuard{Name: l.Name, Public: wg.FormatKey(d.Public), Port: d.Port, MTU: int(l.MTU)})
	for _, p := range d.Peers {
		s.Add(netspec.Peer{Link: l.Name, Public: wg.FormatKey(p.Key), At: p.At, Allowed: p.Allowed.Addr(), Awake: p.Awake})
	}
	return nil
}
