package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	v4 "github.com/insomniacslk/dhcp/dhcpv4"

	"isle/internal/netspec"
)

// dhcp4 is the state machine of RFC 2131, figure 5, as a program: obtain is what
// leads to BOUND, keep what is behind it.
type dhcp4 struct {
	link
}

func newV4(cfg Config, r reporter) *dhcp4 {
	t := newTally(cfg.Interface, "no DHCP server answered", "a DHCP server offered an address and did not confirm it", "DISCOVER", "OFFER", "REQUEST", "ACK", "DECLINE", "NAK")
	return &dhcp4{link{cfg: cfg, r: r, t: t}}
}

func (d *dhcp4) close() {}

func (d *dhcp4) failure(cause error) error { return d.t.fail(cause) }

const (
	firstWait = time.Second      // for an answer; doubled each time
	lastWait  = 64 * time.Second // RFC 2131 4.1
	requests  = 4                // for one offer, then another is looked for
	reboots   = 3                // for an earlier lease, then it is believed
)

// obtain is INIT-REBOOT with a lease of before, and else INIT.
func (d *dhcp4) obtain(ctx context.Context, previous *Lease) (Lease, error) {
	var wish netip.Addr
	if previous != nil && usable4(previous.Address().Addr()) {
		wish = previous.Address().Addr()
		if previous.Valid(time.Now()) {
			if l, err := d.reboot(ctx, *previous); err == nil || ctx.Err() != nil {
				return l, err
			}
		}
	}
	pause := pauses()
	for {
		l, err := d.initial(ctx, wish)
		if err == nil || ctx.Err() != nil {
			return l, err
		}
		if err := sleep(ctx, pause(err)); err != nil {
			return Lease{}, err
		}
	}
}

// pauses are between attempts: with a server that offers what is in use, or
// refuses what it offered, they grow to what RFC 2131 3.1 wants of a DECLINE.
func pauses() func(error) time.Duration {
	grow := doubling(firstWait, 16*time.Second, -1)
	return func(err error) time.Duration {
		if errors.Is(err, errInterface) {
			return retryOpen
		}
		d, _ := grow()
		return d
	}
}

// reboot asks whether a lease of before is good here still. Without an answer it
// is (RFC 2131 3.2): the server may be down, and the lease is the client's.
func (d *dhcp4) reboot(ctx context.Context, l Lease) (Lease, error) {
	g := newDialogue()
	long := min(7*time.Second, d.cfg.Limit*2/3) // leaves time for a new one
	asking, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	s, err := d.open(asking, answers4(d.cfg.MAC))
	if err != nil {
		return d.believed(ctx, l)
	}
	defer s.close()
	next, err := d.confirm(asking, s, question{
		m: d.cfg.requestAgain(g, l.Address().Addr()), dialogue: g, to: all, waits: doubling(firstWait, lastWait, reboots),
	})
	if errors.Is(err, errRefused) || err == nil {
		return next, err
	}
	return d.believed(ctx, l)
}

// again is when a server is asked for the next time about a lease that none
// confirmed.
const again = time.Minute

// believed is a lease that nobody confirmed, unless there is no interface.
func (d *dhcp4) believed(ctx context.Context, l Lease) (Lease, error) {
	if err := errors.Join(ctx.Err(), d.t.link); ctx.Err() != nil || errors.Is(err, errdefs.ErrNotFound) {
		return Lease{}, err
	}
	if soon := time.Now().Add(again); soon.Before(l.Renew) {
		l.Renew = soon
	}
	d.cfg.Log.Warn("dhcp: no server confirmed the lease: it is used while it lasts", "lease", l.String())
	return l, nil
}

// initial is INIT, SELECTING, REQUESTING, and the probe of the address.
func (d *dhcp4) initial(ctx context.Context, wish netip.Addr) (Lease, error) {
	s, err := d.open(ctx, answers4(d.cfg.MAC))
	if err != nil {
		return Lease{}, err
	}
	defer s.close()
	g := newDialogue()
	offer, err := d.selecting(ctx, s, g, wish)
	if err != nil {
		return Lease{}, err
	}
	l, err := d.confirm(ctx, s, question{
		m: d.cfg.requestOffer(g, offer.Address().Addr(), offer.Server), dialogue: g, to: all, only: offer.Server,
		waits: doubling(firstWait, lastWait, requests),
	})
	if err != nil {
		return Lease{}, err
	}
	return l, d.probe(ctx, s, l)
}

// selecting takes the first offer that makes sense.
func (d *dhcp4) selecting(ctx context.Context, s socket, g dialogue, wish netip.Addr) (offer Lease, err error) {
	q := question{m: d.cfg.discover(g, wish), dialogue: g, to: all, waits: doubling(firstWait, lastWait, -1)}
	err = d.ask(ctx, s, q, func(m *v4.DHCPv4) error {
		if m.MessageType() != v4.MessageTypeOffer {
			return errNoAnswer
		}
		d.t.count("OFFER")
		offer, err = d.cfg.parse4(m, time.Now())
		return d.refused(err)
	})
	return offer, err
}

// refused notes why an answer was not taken, and waits for others.
func (d *dhcp4) refused(err error) error {
	if err == nil {
		return nil
	}
	d.t.refuse(err.Error())
	return errNoAnswer
}

// confirm asks for an ACK. The lease runs from when it was asked for.
func (d *dhcp4) confirm(ctx context.Context, s socket, q question) (l Lease, err error) {
	start := time.Now()
	err = d.ask(ctx, s, q, func(m *v4.DHCPv4) error {
		from, _ := netip.AddrFromSlice(m.Options.Get(v4.OptionServerIdentifier))
		if q.only.IsValid() && from != q.only {
			return errNoAnswer
		}
		switch m.MessageType() {
		case v4.MessageTypeNak:
			d.t.count("NAK")
			why := fmt.Sprintf("%s refused: %q", from, shortened(strings.TrimRight(m.Message(), "\x00")))
			d.t.refuse(why)
			return fmt.Errorf("%w: %s", errRefused, why)
		case v4.MessageTypeAck:
			d.t.count("ACK")
			l, err = d.cfg.parse4(m, start)
			return d.refused(err)
		}
		return errNoAnswer
	})
	return l, err
}

// probe declines an address that somebody has.
func (d *dhcp4) probe(ctx context.Context, s socket, l Lease) error {
	a := l.Address().Addr()
	mac, used, err := d.cfg.usedBy(ctx, a)
	if err != nil && ctx.Err() == nil {
		d.state(err)
	}
	if err != nil || !used {
		return err
	}
	d.t.count("DECLINE")
	d.t.used = fmt.Sprintf("%s is used by %s", a, hardware(mac))
	d.cfg.Log.Warn("dhcp: the server's address is in use", "address", a, "by", hardware(mac).String())
	m := d.cfg.decline(newDialogue(), a, l.Server)
	return errors.Join(errInUse, d.send(s, d.frame(m, all)))
}

// target is whom a message is for.
type target struct {
	mac  netspec.MAC
	addr netip.Addr
}

var all = target{everybody, netip.AddrFrom4([4]byte{255, 255, 255, 255})}

// question is a message with how it is asked, and of whom.
type question struct {
	m *v4.DHCPv4
	dialogue
	to    target
	only  netip.Addr // the server that alone may answer, if valid
	waits waits
}

// ask sends a message again and again, until take likes an answer or ends it by
// an error other than errNoAnswer.
func (d *dhcp4) ask(ctx context.Context, s socket, q question, take func(*v4.DHCPv4) error) error {
	for {
		long, more := q.waits()
		if !more {
			return errNoAnswer
		}
		q.m.NumSeconds = uint16(min(time.Since(q.start)/time.Second, 0xffff))
		if err := d.send(s, d.frame(q.m, q.to)); err != nil {
			return err
		}
		d.t.count(names4[q.m.MessageType()])
		if err := d.answers(ctx, s, q.dialogue, long, take); !errors.Is(err, errNoAnswer) {
			return err
		}
	}
}

var names4 = map[v4.MessageType]string{v4.MessageTypeDiscover: "DISCOVER", v4.MessageTypeRequest: "REQUEST"}

func (d *dhcp4) frame(m *v4.DHCPv4, to target) []byte {
	src := netip.IPv4Unspecified()
	if a, ok := netip.AddrFromSlice(m.ClientIPAddr); ok {
		src = a // the address is in use
	}
	return udp4(to.mac, d.cfg.MAC, to.addr, src, m.ToBytes())
}

// answers are shown to take for a while.
func (d *dhcp4) answers(ctx context.Context, s socket, g dialogue, long time.Duration, take func(*v4.DHCPv4) error) error {
	end := time.NewTimer(long)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return errNoAnswer
		case f, open := <-s.frames():
			if !open {
				d.state(fmt.Errorf("%s failed: %w", d.cfg.Interface, errInterface))
				return errInterface
			}
			if m, _, ok := d.cfg.read4(g, f); ok {
				if err := take(m); !errors.Is(err, errNoAnswer) {
					return err
				}
			}
		}
	}
}
