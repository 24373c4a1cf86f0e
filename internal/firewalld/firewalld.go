// Package firewalld tells firewalld about our bridges.
//
// firewalld rejects what is forwarded from or to an interface that nobody has put
// into a zone. So our bridges join a zone that lets everything pass: what may pass
// is decided in our own table. The zone is "isle" where the administrator has made
// one, else "trusted", which every firewalld has. Nothing permanent is written, and
// firewalld is never started or reloaded by us.
//
//	zones := firewalld.New(log)
//	zones.Add("isle0")
//	err := zones.Run(ctx)
//
// Traps. A bridge that is in some zone already stays there: that is the
// administrator's wish. firewalld keeps what was set at run time over a reload, but
// not over a restart, and a zone that a reload has dropped takes its interfaces with
// it; so everything is said again after both.
package firewalld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names on the bus.
const (
	service    = "org.fedoraproject.FirewallD1"
	path       = "/org/fedoraproject/FirewallD1"
	zoneMethod = service + ".zone."
	owned      = "org.freedesktop.DBus.NameHasOwner"
	ownerLeft  = "org.freedesktop.DBus.NameOwnerChanged"
	reloaded   = service + ".Reloaded"
)

// Zones of firewalld that let everything pass, by preference.
var preferred = []string{"isle", "trusted"}

// Zones keeps bridges in a zone. Add and Remove may be called at any time, by
// several goroutines, and do not wait for firewalld.
type Zones struct {
	// Connect opens the bus; nil: the system's.
	Connect func() (*dbus.Conn, error)

	log  *slog.Logger
	kick chan struct{}

	mu   sync.Mutex
	want map[string]bool // by bridge: false is one to take out
}

// New makes Zones without bridges.
func New(log *slog.Logger) *Zones {
	return &Zones{log: log, kick: make(chan struct{}, 1), want: map[string]bool{}}
}

// Add says that a bridge is to be in the zone.
func (z *Zones) Add(bridge string) { z.set(bridge, true) }

// Remove says that a bridge is gone.
func (z *Zones) Remove(bridge string) { z.set(bridge, false) }

func (z *Zones) set(bridge string, there bool) {
	z.mu.Lock()
	z.want[bridge] = there
	z.mu.Unlock()
	select {
	case z.kick <- struct{}{}:
	default:
	}
}

const (
	// retry is how long to wait for a bus, which may not be there, or not yet.
	retry = 30 * time.Second
	// again is how long to wait when firewalld has refused something: while it starts
	// and while it reloads it does.
	again = time.Second
)

// Run keeps firewalld informed until ctx is done.
func (z *Zones) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := z.serve(ctx)
		z.log.Debug("no talk with firewalld", "err", err)
		z.rest(ctx)
	}
	return nil
}

// rest waits before the bus is looked for again.
func (z *Zones) rest(ctx context.Context) {
	for timer := time.After(retry); ; {
		z.dropGone()
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-z.kick:
		}
	}
}

// dropGone drops the bridges to take out: where no firewalld runs there is nothing
// to take them out of.
func (z *Zones) dropGone() {
	z.mu.Lock()
	defer z.mu.Unlock()
	maps.DeleteFunc(z.want, func(_ string, there bool) bool { return !there })
}

// serve talks over one connection until it breaks.
func (z *Zones) serve(ctx context.Context) error {
	connect := z.Connect
	if connect == nil {
		connect = func() (*dbus.Conn, error) { return dbus.ConnectSystemBus() }
	}
	c, err := connect()
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer c.Close()
	signals := make(chan *dbus.Signal, 16)
	c.Signal(signals)
	err = errors.Join(
		c.AddMatchSignalContext(ctx, dbus.WithMatchInterface(service), dbus.WithMatchMember("Reloaded")),
		c.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service)))
	if err != nil {
		return fmt.Errorf("listen on the system bus: %w", err)
	}
	all := true // everything is to be said, not only what is new
	told := map[string]bool{}
	for {
		if all {
			clear(told)
		}
		var refused <-chan time.Time
		if !z.tell(ctx, c, told) {
			refused = time.After(again)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Context().Done():
			return errors.New("the bus has closed the connection")
		case <-z.kick:
			all = false
		case <-refused:
			all = false
		case s := <-signals:
			all = s != nil && (s.Name == reloaded || s.Name == ownerLeft)
		}
	}
}

// tell says what firewalld, if it runs, has not been told, and reports whether it
// took all of it.
func (z *Zones) tell(ctx context.Context, c *dbus.Conn, told map[string]bool) bool {
	var runs bool
	if err := c.BusObject().CallWithContext(ctx, owned, 0, service).Store(&runs); err != nil || !runs {
		z.dropGone()
		return true // it will say when it comes
	}
	fw := firewall{c.Object(service, path)}
	z.mu.Lock()
	want := maps.Clone(z.want)
	z.mu.Unlock()
	maps.DeleteFunc(told, func(bridge string, _ bool) bool { _, ok := want[bridge]; return !ok })
	all := true
	for _, bridge := range slices.Sorted(maps.Keys(want)) {
		if was, ok := told[bridge]; ok && was == want[bridge] {
			continue
		}
		if err := z.put(ctx, fw, bridge, want[bridge]); err != nil {
			z.log.Warn("tell firewalld of a bridge", "bridge", bridge, "err", err)
			all = false
			continue
		}
		told[bridge] = want[bridge]
	}
	return all
}

// put brings one bridge into the zone, or out of it.
func (z *Zones) put(ctx context.Context, fw firewall, bridge string, there bool) error {
	in, err := fw.zoneOf(ctx, bridge)
	if err != nil {
		return err
	}
	if !there {
		if slices.Contains(preferred, in) {
			err = fw.call(ctx, "removeInterface", in, bridge)
		}
		z.forget(bridge, err)
		return err
	}
	if in != "" {
		return nil
	}
	zone, err := fw.zone(ctx)
	if err != nil {
		return err
	}
	if err := fw.call(ctx, "addInterface", zone, bridge); err != nil {
		return fmt.Errorf("add it to zone %s: %w", zone, err)
	}
	z.log.Info("a bridge joined a zone of firewalld", "bridge", bridge, "zone", zone)
	return nil
}

// forget drops a bridge that was taken out and has not come back meanwhile.
func (z *Zones) forget(bridge string, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if there, ok := z.want[bridge]; ok && !there && err == nil {
		delete(z.want, bridge)
	}
}

// firewall is the running firewalld.
type firewall struct{ dbus.BusObject }

// patience is for one call: firewalld answers late while it reloads.
const patience = 20 * time.Second

func (f firewall) ask(ctx context.Context, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f.CallWithContext(ctx, zoneMethod+method, dbus.FlagNoAutoStart, args...)
}

func (f firewall) call(ctx context.Context, method string, args ...any) error {
	return f.ask(ctx, method, args...).Err
}

// zoneOf is the zone that an interface was put into; "": none.
func (f firewall) zoneOf(ctx context.Context, iface string) (zone string, err error) {
	err = f.ask(ctx, "getZoneOfInterface", iface).Store(&zone)
	return zone, err
}

// zone is the preferred one of those that there are.
func (f firewall) zone(ctx context.Context) (string, error) {
	var zones []string
	if err := f.ask(ctx, "getZones").Store(&zones); err != nil {
		return "", err
	}
	for _, z := range preferred {
		if slices.Contains(zones, z) {
			return z, nil
		}
	}
	return "", fmt.Errorf("firewalld has none of the zones %q (hint: firewall-cmd --permanent --new-zone=isle && firewall-cmd --permanent --zone=isle --set-target=ACCEPT && firewall-cmd --reload)", preferred)
}
