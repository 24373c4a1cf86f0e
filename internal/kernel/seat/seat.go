// Package seat gives links a seat in a namespace that others made on the host for it:
// plugins, which delete them again. It moves a link in, names it, brings it up, and
// takes it back out. What is on the link (addresses, routes) is planned like all else
// and written by package kernel.
//
//	seated, err := seats.Take(ctx, netspec.Seat{Source: "veth1a2b", NSPath: "/run/isle/ns/…", Name: "eth0", Owner: endpoint})
//	err = seats.Return(ctx, seat, seated)
//
// A plugin's answer says which link it is, and a mistake there would take the host
// off the network: Take refuses a link that the host itself uses, see usable.
//
// Traps. Inside, names are no proof: who has CAP_NET_ADMIN there can rename links and
// make others, which must not get out to the host. A link is therefore known by its
// number, its kind and its other end. Only when those were lost (a crash between the
// move and the record) does its alias count, which says whose it is and what its name
// was; it is written by the message that moves it.
package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// Seats moves links between the host's namespace and others. Its methods may be
// called by several goroutines.
type Seats struct {
	mark rtnl.Mark
	host *os.File
}

// Open makes Seats for the namespace of the calling thread; mark is that of links that
// are ours, which nobody else may give away.
func Open(mark rtnl.Mark) (*Seats, error) {
	host, err := netns.Self()
	if err != nil {
		return nil, fmt.Errorf("open the host's namespace: %w", err)
	}
	return &Seats{mark, host}, nil
}

// Close frees the namespace.
func (s *Seats) Close() error { return s.host.Close() }

// Take moves a link in and brings it up. After an error it is on the host again.
func (s *Seats) Take(_ context.Context, w netspec.Seat) (out netspec.Seated, err error) {
	err = s.between(w, func(v *visit) error {
		out, err = v.take()
		return err
	})
	return out, about(w, "move", err)
}

// Check reports what is no longer as Take left it.
func (s *Seats) Check(_ context.Context, w netspec.Seat, have netspec.Seated) error {
	err := s.between(w, func(v *visit) error {
		l, err := v.find(have)
		switch {
		case err != nil:
			return err
		case l.Index == 0:
			return fmt.Errorf("it is not there: %w", errdefs.ErrNotFound)
		case l.Name != w.Name:
			return fmt.Errorf("it has the name %s: %w", l.Name, errdefs.ErrFailedPrecondition)
		case !l.Up:
			return fmt.Errorf("it is down: %w", errdefs.ErrFailedPrecondition)
		}
		return nil
	})
	return about(w, "look for", err)
}

// Return takes a link back out to the host, under its old name, down. have may be the
// zero value when it was lost. A namespace or a link that is gone is no error: it
// died with it, or is back already.
func (s *Seats) Return(_ context.Context, w netspec.Seat, have netspec.Seated) error {
	err := s.between(w, func(v *visit) error {
		l, err := v.find(have)
		if err != nil || l.Index == 0 {
			return err
		}
		return v.bringBack(l)
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return about(w, "take back", err)
}

func about(w netspec.Seat, doing string, err error) error {
	if err == nil {
		return nil
	}
	name := w.Source
	if name == "" {
		name = w.Name
	}
	return fmt.Errorf("%s link %s: %w", doing, name, err)
}

// visit is both ends of a move.
type visit struct {
	*Seats
	netspec.Seat
	ns       *os.File
	out, ins *rtnl.Conn // on the host; inside
}

func (s *Seats) between(w netspec.Seat, do func(*visit) error) (err error) {
	v := &visit{Seats: s, Seat: w}
	if v.ns, err = netns.OpenFile(w.NSPath); err != nil {
		return err
	}
	defer v.ns.Close()
	if v.out, err = rtnl.Open(s.host); err != nil {
		return err
	}
	defer v.out.Close()
	if v.ins, err = rtnl.Open(v.ns); err != nil {
		return err
	}
	defer v.ins.Close()
	return do(v)
}

func (v *visit) take() (out netspec.Seated, err error) {
	if !validName(v.Source) {
		return out, fmt.Errorf("%q is no name of a link: %w", v.Source, errdefs.ErrInvalidArgument)
	}
	l, err := v.out.Link(v.Source)
	if errors.Is(err, unix.ENODEV) {
		return out, fmt.Errorf("it is not on the host: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return out, err
	}
	if err := v.usable(l); err != nil {
		return out, err
	}
	over := v.other(l)
	in, err := v.moveIn(l)
	if err != nil {
		return out, err
	}
	if err := v.raise(in); err != nil {
		return out, errors.Join(err, v.bringBack(in))
	}
	out = netspec.Seated{Index: in.Index, Peer: in.Peer, Kind: in.Kind, MAC: in.MAC, MTU: int(in.MTU), Host: over}
	if v.MAC != (netspec.MAC{}) {
		out.MAC = v.MAC
	}
	return out, nil
}

// other is the link of the host that l ends in, or is on; "": there is none.
func (v *visit) other(l rtnl.Info) string {
	if l.Peer == 0 || l.PeerNS >= 0 {
		return ""
	}
	o, err := v.out.LinkAt(l.Peer)
	if err != nil { // it is told for inspection only
		return ""
	}
	return o.Name
}

// moveIn returns the link as it is inside.
func (v *visit) moveIn(l rtnl.Info) (rtnl.Info, error) {
	if have, err := v.ins.Link(v.Name); err == nil {
		return have, fmt.Errorf("there is a link %s in the container already: %w", v.Name, errdefs.ErrConflict)
	}
	err := v.out.Do(rtnl.MoveLink(l.Index, rtnl.Move{NS: int(v.ns.Fd()), Name: v.Name, Alias: v.alias()}))
	if err != nil {
		return l, errors.Join(v.notMoved(l, err), v.backAfterHalf(l))
	}
	in, err := v.find(netspec.Seated{})
	if err == nil && in.Index == 0 {
		err = errors.New("it did not get there")
	}
	return in, err
}

func (v *visit) notMoved(l rtnl.Info, err error) error {
	if errors.Is(err, unix.EINVAL) && v.stays(l) {
		return fmt.Errorf("links of kind %q cannot be moved: %w: %w", l.Kind, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("move it into the container as %s: %w", v.Name, err)
}

// backAfterHalf : the kernel goes on with what it can when it refuses a part, so that
// the link may be inside under any name. Its number is the same there.
func (v *visit) backAfterHalf(l rtnl.Info) error {
	if v.stays(l) {
		return nil
	}
	in, err := v.known(netspec.Seated{Index: l.Index, Peer: l.Peer, Kind: l.Kind})
	if err != nil || in.Index == 0 {
		return err
	}
	return v.bringBack(in)
}

func (v *visit) stays(l rtnl.Info) bool {
	_, err := v.out.LinkAt(l.Index)
	return err == nil
}

// aliasMark begins the aliases of links that have a seat.
const aliasMark = "isle-seat "

func (v *visit) alias() string { return aliasMark + v.Owner + " " + v.Source }

// find is the link inside; its number is 0 when it is not there.
func (v *visit) find(have netspec.Seated) (rtnl.Info, error) {
	if have.Index != 0 {
		return v.known(have)
	}
	l, err := v.ins.Link(v.Name)
	if errors.Is(err, unix.ENODEV) {
		return rtnl.Info{}, nil
	}
	if source, ok := strings.CutPrefix(l.Alias, aliasMark+v.Owner+" "); ok && err == nil && (v.Source == "" || v.Source == source) {
		v.Source = source
		return l, nil
	}
	return rtnl.Info{}, err
}

func (v *visit) known(have netspec.Seated) (rtnl.Info, error) {
	l, err := v.ins.LinkAt(have.Index)
	if errors.Is(err, unix.ENODEV) {
		return rtnl.Info{}, nil
	}
	if err != nil || l.Kind != have.Kind || l.Peer != have.Peer || l.Peer != 0 && l.PeerNS < 0 {
		return rtnl.Info{}, err
	}
	return l, nil
}

// raise brings the link up, after its IPv6 is as it is to be: else it would ask the
// routers of its LAN for addresses meanwhile.
func (v *visit) raise(in rtnl.Info) error {
	if err := netns.Visit(v.ns, func() error { return quiet(in.Name, v.IPv6) }); err != nil {
		return err
	}
	if err := v.ins.Do(rtnl.UpAs(in.Index, v.MAC)); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	return nil
}

// bringBack moves the link out under its old name, which must be free: the kernel
// would leave the link there under the one that it has inside.
func (v *visit) bringBack(in rtnl.Info) error {
	if !validName(v.Source) {
		return fmt.Errorf("its name on the host was %q: %w", v.Source, errdefs.ErrInvalidArgument)
	}
	if _, err := v.out.Link(v.Source); err == nil {
		return fmt.Errorf("there is another link %s on the host: %w", v.Source, errdefs.ErrConflict)
	}
	if err := v.ins.Do(rtnl.MoveLink(in.Index, rtnl.Move{NS: int(v.host.Fd()), Name: v.Source})); err != nil {
		return fmt.Errorf("move it back to the host: %w", err)
	}
	return nil
}
