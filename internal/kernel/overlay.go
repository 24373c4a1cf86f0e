package kernel

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// vxlan makes, changes or deletes one tunnel.
func (k *Kernel) vxlan(c reconcile.Change) error {
	gone := []netspec.Link{{Name: c.Key.ID}} // as the owner mark is the same
	v, ok := c.New.(netspec.VXLAN)
	if !ok {
		return k.deleteLinks(gone)
	}
	old, _ := c.Old.(netspec.VXLAN)
	stations, err := k.renew(old, v)
	if err != nil {
		return err
	}
	made, err := k.makeVXLAN(v)
	if err == nil {
		err = k.setVXLAN(v, stations)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("make tunnel %s: %w", v.Name, err)
	if made {
		err = errors.Join(err, k.deleteLinks(gone))
	}
	return err
}

// renew deletes a tunnel that cannot be changed into v, and returns where its stations
// were: they are in force still, as far as anybody knows.
func (k *Kernel) renew(old, v netspec.VXLAN) ([]netspec.Object, error) {
	fixed := func(v netspec.VXLAN) netspec.VXLAN {
		v.MTU, v.Master, v.Whole = 0, "", false
		return v
	}
	if old.Name == "" || fixed(old) == fixed(v) || sameKind(old, v) {
		return nil, nil
	}
	index, err := k.rt.Index(v.Name)
	if err != nil {
		return nil, rtnl.Gone(err)
	}
	stations, err := k.stations(index, v.Name, old.Master == "")
	if err != nil {
		return nil, err
	}
	return stations, k.deleteLinks([]netspec.Link{{Name: v.Name}})
}

// sameKind reports whether the kernel can make v of old without an interruption.
func sameKind(old, v netspec.VXLAN) bool {
	return (old.Via == "") == (v.Via == "") && old.VNI == v.VNI && old.Port == v.Port && old.Local.BitLen() == v.Local.BitLen()
}

// makeVXLAN makes a tunnel, unless it is there and ours.
func (k *Kernel) makeVXLAN(v netspec.VXLAN) (made bool, err error) {
	via, err := k.rt.Exit(v.Via)
	if err != nil {
		return false, err
	}
	have, err := k.rt.Link(v.Name)
	switch {
	case err == nil && (have.Group != k.mark.Group || have.Kind != netspec.KindVXLAN):
		return false, foreign(v.Name, nil)
	case err == nil && have.VXLAN.VNI == v.VNI && have.VXLAN.Port == v.Port && (have.VXLAN.Link == 0) == (via == 0) && have.VXLAN.Local.BitLen() == v.Local.BitLen():
		return false, nil
	case err == nil:
		err = k.deleteLinks([]netspec.Link{{Name: v.Name}})
	}
	if rtnl.Gone(err) != nil {
		return false, err
	}
	k.rt.Forget()
	err = tunnelBusy(supported(k.rt.Do(rtnl.NewVXLAN(v, k.mark, via)), v), v)
	return err == nil, err
}

// tunnelBusy says it in words when somebody else has the tunnel's number.
func tunnelBusy(err error, v netspec.VXLAN) error {
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	return fmt.Errorf("another tunnel on this host has VNI %d at UDP port %d: %w: %w (hint: another -o com.docker.network.driver.overlay.vxlanid_list, or another -o isle.overlay.port)",
		v.VNI, v.Port, err, errdefs.ErrConflict)
}

// setVXLAN makes a tunnel that is there what it should be. The host has no address on
// it, so it gets no IPv6.
func (k *Kernel) setVXLAN(v netspec.VXLAN, stations []netspec.Object) error {
	index, err := k.rt.Index(v.Name)
	if err != nil {
		return err
	}
	var master int32
	if v.Master != "" {
		if master, err = k.rt.Index(v.Master); err != nil {
			return err
		}
	}
	via, err := k.rt.Exit(v.Via)
	if err != nil {
		return err
	}
	if err := netns.Visit(k.host, func() error { return quiet(v.Name, false) }); err != nil {
		return err
	}
	msgs := append(rtnl.SetVXLAN(index, master, via, v), k.stationMessages(index, stations)...)
	errs, err := k.rt.Execute(msgs...)
	return errors.Join(append(errs, err)...)
}

// readHops adds our routes by links of others.
func (k *Kernel) readHops(s netspec.State, v rtnl.View) {
	for _, r := range v.Routes {
		if l := v.Links[r.Index]; !k.ours(l) {
			if h, ok := k.mark.Hop(r, l.Name); ok {
				s[h.Key()] = h // two by different links: the last one stands for both
				k.memory.note(h.Key(), h)
			}
		}
	}
}

// stationMessages say again what stations were there. Those whose way is gone are not
// for now.
func (k *Kernel) stationMessages(index int32, stations []netspec.Object) (msgs []nlmsg.Message) {
	for _, o := range stations {
		switch o := o.(type) {
		case netspec.FDB:
			if via, err := k.rt.Exit(o.Via); err == nil {
				msgs = append(msgs, rtnl.AddFDB(index, via, o))
			}
		case netspec.Flood:
			if via, err := k.rt.Exit(o.Via); err == nil {
				msgs = append(msgs, rtnl.AddFlood(index, via, o))
			}
		}
	}
	return msgs
}

// stations are those of a tunnel that is there.
func (k *Kernel) stations(index int32, tunnel string, alone bool) ([]netspec.Object, error) {
	links, err := k.rt.Links(false)
	if err != nil {
		return nil, fmt.Errorf("find all links: %w", err)
	}
	names := map[int32]string{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	out, err := k.rt.Stations(index, tunnel, alone, names)
	if err != nil {
		return nil, fmt.Errorf("read stations of tunnel %s: %w", tunnel, err)
	}
	return out, nil
}

// readVXLAN adds a tunnel and its stations. One that learns is not what anybody wants:
// to Sync it is missing, and making it again puts it right.
func readVXLAN(s netspec.State, c *rtnl.Conn, l rtnl.Info, names map[int32]string) error {
	if !l.VXLAN.Learns {
		s.Add(l.Tunnel(names))
	}
	stations, err := c.Stations(l.Index, l.Name, l.Master == 0, names)
	if err != nil {
		return fmt.Errorf("read stations of tunnel %s: %w", l.Name, err)
	}
	for _, o := range stations {
		s.Add(o)
	}
	return nil
}
