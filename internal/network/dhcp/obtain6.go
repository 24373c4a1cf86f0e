package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"isle/internal/netspec"
)

// dhcp6 is IPv6: what routers advertise decides whether addresses are made of
// their prefixes, or asked for of a DHCPv6 server, or both.
type dhcp6 struct {
	link
	s       socket // open until close: routers speak when they want to
	routers routers
	grant   *grant // addresses of DHCPv6, if there are
	info    *grant // else what it says of the rest
	retry   time.Time
	tries   waits
	last    Lease     // that the caller knows
	told    time.Time // since when
}

// Acquire6 gets IPv6 addresses, as the routers of the LAN want it, and holds them
// until Release or Close. It is Acquire in all else.
func Acquire6(ctx context.Context, cfg Config) (*Client, Lease, error) {
	cfg, err := cfg.checked(true)
	if err != nil {
		return nil, Lease{}, err
	}
	return start(ctx, cfg, func(r reporter) protocol { return newV6(cfg, r) })
}

func newV6(cfg Config, r reporter) *dhcp6 {
	t := newTally(cfg.Interface, "neither a router nor a DHCPv6 server answered", "a router answered, and there was no IPv6 address",
		"router solicitation", "router advertisement", "SOLICIT", "ADVERTISE", "REQUEST", "REPLY", "DECLINE")
	return &dhcp6{link: link{cfg: cfg, r: r, t: t}}
}

func (d *dhcp6) failure(cause error) error { return d.t.fail(cause) }

func (d *dhcp6) close() {
	if d.s != nil {
		d.s.close()
		d.s = nil
	}
}

// ready opens the socket again after a failure.
func (d *dhcp6) ready(ctx context.Context) (err error) {
	if d.s == nil {
		d.s, err = d.open(ctx, answers6())
	}
	return err
}

// failed closes it.
func (d *dhcp6) failed() error {
	d.state(fmt.Errorf("%s failed: %w", d.cfg.Interface, errInterface))
	d.close()
	return errInterface
}

// errChanged ends a question because routers said something meanwhile.
var errChanged = errors.New("routers have news")

const (
	solicits      = 2 // for routers, before DHCPv6 is tried without their word
	mostSolicit   = 2 * time.Minute
	confirmFor    = 5 * time.Second
	maxPreference = 255
)

// obtain gets addresses. What was known of routers and DHCPv6 counts no more.
func (d *dhcp6) obtain(ctx context.Context, previous *Lease) (Lease, error) {
	d.routers, d.grant, d.info, d.retry = routers{}, nil, nil, time.Time{}
	pause := pauses()
	for {
		err := d.attempt(ctx, previous)
		if l := d.compose(time.Now()); err == nil && len(l.Addresses) > 0 {
			return l, nil
		}
		if ctx.Err() != nil {
			return Lease{}, ctx.Err()
		}
		if err := sleep(ctx, pause(err)); err != nil {
			return Lease{}, err
		}
	}
}

// attempt asks for routers and then for what they leave to DHCPv6.
func (d *dhcp6) attempt(ctx context.Context, previous *Lease) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	switch err := d.solicitRouters(ctx); {
	case errors.Is(err, errNoAnswer) && previous != nil && !d.routers.known():
		d.routers.seed(*previous, time.Now())
	case err != nil && !errors.Is(err, errNoAnswer):
		return err
	}
	for {
		if err := d.ask6(ctx, previous); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// ask6 asks for what routers leave to DHCPv6. Without an answer, addresses by
// routers are enough.
func (d *dhcp6) ask6(ctx context.Context, previous *Lease) (err error) {
	switch {
	case d.stateful():
		err = d.addresses(ctx, previous)
	case d.routers.other():
		err = d.others(ctx)
	}
	if errors.Is(err, errNoAnswer) || errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// stateful: without any router, DHCPv6 is worth a try.
func (d *dhcp6) stateful() bool { return d.routers.managed() || !d.routers.known() }

// prefixed reports whether routers give addresses.
func (d *dhcp6) prefixed() bool {
	var l Lease
	d.routers.fill(&l, d.cfg, time.Now())
	return len(l.Addresses) > 0
}

// solicitRouters asks until one speaks.
func (d *dhcp6) solicitRouters(ctx context.Context) error {
	w := doubling(firstWait, lastWait, solicits)
	for {
		long, more := w()
		if !more {
			return errNoAnswer
		}
		if err := d.sendRS(); err != nil {
			return err
		}
		if err := d.hear(ctx, long, func(frame) error { return nil }, d.routers.known); !errors.Is(err, errNoAnswer) {
			return err
		}
	}
}

func (d *dhcp6) sendRS() error {
	d.t.count("router solicitation")
	return d.give(func(src netip.Addr) []byte { return solicitRouters(d.cfg.MAC, src) })
}

// give sends a frame; the socket is closed when it fails.
func (d *dhcp6) give(made func(src netip.Addr) []byte) error {
	if d.s == nil {
		return errInterface
	}
	if err := d.send(d.s, made(d.s.local())); err != nil {
		d.close()
		return err
	}
	return nil
}

// hear shows frames to take for a while, and to what is known of routers. It
// ends early when take likes one, and with errChanged when news says so.
func (d *dhcp6) hear(ctx context.Context, long time.Duration, take func(frame) error, news func() bool) error {
	end := time.NewTimer(long)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return errNoAnswer
		case f, open := <-d.s.frames():
			if !open {
				return d.failed()
			}
			if d.see(f) {
				if news() {
					return nil
				}
				continue
			}
			if err := take(f); !errors.Is(err, errNoAnswer) {
				return err
			}
		}
	}
}

// see takes note of what a router says.
func (d *dhcp6) see(f frame) bool {
	a, ok := readAdvert(f)
	if ok {
		d.t.count("router advertisement")
		d.routers.take(a, time.Now())
	}
	return ok
}

// ask sends a message again and again, until take likes an answer or refuses.
func (d *dhcp6) ask(ctx context.Context, m message6, w waits, take func(reply6) error, news func() bool) error {
	for {
		long, more := w()
		if !more {
			return errNoAnswer
		}
		err := d.give(func(src netip.Addr) []byte { return udp6(d.cfg.MAC, src, m.bytes(d.cfg)) })
		if err != nil {
			return err
		}
		d.t.count(names6[m.kind])
		err = d.hear(ctx, long, func(f frame) error {
			if r, ok := d.cfg.read6(m, f); ok {
				return take(r)
			}
			return errNoAnswer
		}, news)
		if !errors.Is(err, errNoAnswer) {
			return err
		}
	}
}

var names6 = map[v6.MessageType]string{v6.MessageTypeSolicit: "SOLICIT", v6.MessageTypeRequest: "REQUEST"}

func never() bool { return false }

// addresses gets some of DHCPv6: those of before, or new ones.
func (d *dhcp6) addresses(ctx context.Context, previous *Lease) error {
	var wish []netip.Addr
	if previous != nil {
		if g := grantOf(*previous, time.Now()); g != nil {
			wish = g.hosts()
			if err := d.confirm(ctx, g); !errors.Is(err, errRefused) {
				return err
			}
		}
	}
	tries := -1
	if d.prefixed() {
		tries = 3
	}
	return d.solicit(ctx, wish, growing(firstWait, mostSolicit, tries))
}

// confirm asks whether addresses of before are of this link still. Without an
// answer they are (RFC 8415 18.2.3).
func (d *dhcp6) confirm(ctx context.Context, g *grant) error {
	m := newMessage6(v6.MessageTypeConfirm)
	m.ia, m.addrs = true, g.hosts()
	end := time.Now().Add(min(confirmFor, d.cfg.Limit/2))
	err := d.ask(ctx, m, growing(firstWait, 4*time.Second, -1).within(end), func(r reply6) error {
		if r.kind != v6.MessageTypeReply {
			return errNoAnswer
		}
		return status(r.opts)
	}, never)
	if err == nil || errors.Is(err, errNoAnswer) {
		d.grant = g
		return nil
	}
	return err
}

// solicit looks for a server, and takes what it gives.
func (d *dhcp6) solicit(ctx context.Context, wish []netip.Addr, w waits) error {
	offer, err := d.offers(ctx, wish, w)
	if err != nil {
		return err
	}
	if d.grant == nil {
		err = d.request(ctx, offer)
	}
	if err != nil {
		return err
	}
	return d.probe(ctx)
}

// offers collects answers for the first wait and returns the server that wants
// it most (RFC 8415 18.2.1). A REPLY is the grant already (rapid commit).
func (d *dhcp6) offers(ctx context.Context, wish []netip.Addr, w waits) (best *grant, err error) {
	m := newMessage6(v6.MessageTypeSolicit)
	m.ia, m.addrs, m.rapid = true, wish, true
	preference := -1
	waits := func() (time.Duration, bool) {
		if best != nil {
			return 0, false
		}
		return w()
	}
	err = d.ask(ctx, m, waits, func(r reply6) error {
		g, err := d.offer(r)
		if err != nil || g == nil {
			return errNoAnswer
		}
		if d.grant != nil {
			return nil
		}
		if p := preferenceOf(r); p > preference {
			best, preference = g, p
		}
		if preference == maxPreference {
			return nil
		}
		return errNoAnswer
	}, func() bool { return d.grant == nil && best == nil && !d.stateful() })
	if best != nil && errors.Is(err, errNoAnswer) {
		err = nil
	}
	if err == nil && best == nil && d.grant == nil {
		err = errChanged
	}
	return best, err
}

// offer reads an ADVERTISE; a REPLY that commits already becomes the grant.
func (d *dhcp6) offer(r reply6) (*grant, error) {
	commits := r.kind == v6.MessageTypeReply && r.has(v6.OptionRapidCommit)
	if r.kind != v6.MessageTypeAdvertise && !commits {
		return nil, errNoAnswer
	}
	d.t.count(map[bool]string{false: "ADVERTISE", true: "REPLY"}[commits])
	g, err := r.grant(d.cfg.iaid(), time.Now())
	if err != nil {
		d.t.refuse(err.Error())
		return nil, err
	}
	if commits {
		d.grant = g
	}
	return g, nil
}

func preferenceOf(r reply6) int {
	if b := r.get(v6.OptionPreference); len(b) == 1 {
		return int(b[0])
	}
	return 0
}

// request asks the server for what it offered, or for what it forgot.
func (d *dhcp6) request(ctx context.Context, offer *grant) error {
	m := newMessage6(v6.MessageTypeRequest)
	m.server, m.ia, m.addrs = offer.server, true, offer.hosts()
	return d.replied(ctx, m, growing(firstWait, 30*time.Second, requests), never)
}

// replied asks for a REPLY, which becomes the grant.
func (d *dhcp6) replied(ctx context.Context, m message6, w waits, news func() bool) error {
	start := time.Now()
	return d.ask(ctx, m, w, func(r reply6) error {
		if r.kind != v6.MessageTypeReply {
			return errNoAnswer
		}
		d.t.count("REPLY")
		g, err := r.grant(d.cfg.iaid(), start)
		if err != nil {
			d.t.refuse(err.Error())
			return d.refusal(err)
		}
		d.grant = g
		return nil
	}, news)
}

// refusal: what cannot be read is no answer; a busy server is one that may have
// another soon.
func (d *dhcp6) refusal(err error) error {
	var s *statusError
	if !errors.As(err, &s) || s.code == iana.StatusUnspecFail {
		return errNoAnswer
	}
	return err
}

// others asks for what is not addresses.
func (d *dhcp6) others(ctx context.Context) error {
	m := newMessage6(v6.MessageTypeInformationRequest)
	return d.ask(ctx, m, growing(firstWait, mostSolicit, 3), func(r reply6) error {
		if r.kind != v6.MessageTypeReply || status(r.opts) != nil {
			return errNoAnswer
		}
		d.info = r.others()
		d.info.refresh = time.Now().Add(refreshOf(r))
		return nil
	}, never)
}

// refreshOf is when to ask again: a day, or what the server says, but not less
// than ten minutes (RFC 8415 21.23).
func refreshOf(r reply6) time.Duration {
	if b := r.get(v6.OptionInformationRefreshTime); len(b) == 4 {
		return min(max(seconds(b), 10*time.Minute), 24*time.Hour)
	}
	return 24 * time.Hour
}

// probe declines addresses that somebody has.
func (d *dhcp6) probe(ctx context.Context) error {
	for _, a := range d.grant.hosts() {
		mac, used, err := d.cfg.usedBy6(ctx, a)
		if err != nil {
			d.grant = nil
			return err
		}
		if !used {
			continue
		}
		d.t.count("DECLINE")
		d.t.used = fmt.Sprintf("%s is used by %s", a, hardware(mac))
		d.cfg.Log.Warn("dhcp: the server's address is in use", "address", a, "by", hardware(mac).String())
		return d.decline(ctx, a)
	}
	return nil
}

func (d *dhcp6) decline(ctx context.Context, a netip.Addr) error {
	m := newMessage6(v6.MessageTypeDecline)
	m.server, m.ia, m.addrs = d.grant.server, true, []netip.Addr{a}
	d.grant = nil
	err := d.ask(ctx, m, growing(firstWait, firstWait, 2), isReply, never)
	if err != nil && !errors.Is(err, errNoAnswer) {
		return err
	}
	return errInUse
}

func isReply(r reply6) error {
	if r.kind != v6.MessageTypeReply {
		return errNoAnswer
	}
	return nil
}

// usedBy6 looks for somebody with the address, as usedBy does for IPv4.
func (c Config) usedBy6(ctx context.Context, a netip.Addr) (mac netspec.MAC, used bool, err error) {
	if c.Probe < 0 {
		return mac, false, nil
	}
	s, err := c.open(neighboursOf(a))
	if err != nil {
		return mac, false, err
	}
	defer s.close()
	return listen(ctx, s, c.Probe, solicitOwner(c.MAC, a), func(f frame) (netspec.MAC, bool) {
		src, kind, b, ok := readICMP6(f)
		if !ok || len(b) < 20 || netip.AddrFrom16([16]byte(b[4:])) != a {
			return mac, false
		}
		from := netspec.MAC(f.data[6:12])
		return from, from != c.MAC && (kind == neighbourAdvertisement || kind == neighbourSolicitation && src.IsUnspecified())
	})
}

// compose makes a lease of all that is known.
func (d *dhcp6) compose(now time.Time) Lease {
	l := Lease{Interface: d.cfg.Interface, Obtained: now}
	if d.grant != nil {
		d.grant.fill(&l, now)
	} else if d.info != nil {
		d.info.fill(&l, now)
		l.ServerDUID = d.info.server
	}
	d.routers.fill(&l, d.cfg, now)
	for i, a := range l.Addresses {
		if i == 0 || later(a.Valid, l.Expire) {
			l.Expire = a.Valid
		}
	}
	return l
}
