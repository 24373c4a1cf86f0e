package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/event"
	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/dns"
	"isle/internal/network/doctor"
	"isle/internal/network/ipam"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store"
)

// Config is what an administrator chooses.
type Config struct {
	LinkPrefix  string        // begins the names of our devices, at most 5 characters
	Bridge      string        // device of the default network
	Subnet      netip.Prefix  // of the default network; invalid: one that is free
	IPv6        bool          // networks have IPv6 when nobody says whether they should
	SealPort    uint16        // UDP port of encrypted tunnels, and the next one while a key is changed; 0: 51871
	KeyLife     time.Duration // after which the key of encrypted tunnels is changed; 0: never
	HostLease   time.Duration // after which the others of the cluster take a host that is silent for dead
	HostBinding netip.Addr    // where ports are published when no address is named; invalid: everywhere
	Resync      time.Duration // how often the machine is compared with the records; 0: never
}

// Manager owns the networks of one host. Its fields are set once; then Start,
// then Run. Every other method may be called concurrently.
//
// An operation commits its records first, in one transaction, and then brings
// the kernel in step. When the kernel refuses, the records are put back. So at
// any moment, also after a crash, Sync can make the kernel what the records
// say. One operation at a time changes things; reading does not wait for it.
type Manager struct {
	Store   store.Store       // required
	Kernel  reconcile.Kernel  // required
	Drivers map[string]Driver // required
	// Outside finds drivers that are not among Drivers, whether they are there now or
	// not. It asks nobody. May be nil.
	Outside func(name string) (Driver, bool)
	// OutsideIPAM finds IPAM drivers that are not Isle's in the same way. May be nil.
	OutsideIPAM func(name string) (ExternalIPAM, bool)
	IPAM        *ipam.Allocator // required
	Machine     Machine         // required
	Ports       *publish.Table  // required
	DNS         *dns.Server     // nil: names are not resolved
	Events      *event.Bus      // nil: nobody is told
	Log         *slog.Logger    // required
	Config      Config
	// Changed says that somebody else changed something in the kernel. May be nil.
	Changed <-chan reconcile.Alarm
	// Fabric is the cluster that this host is in. nil: none, and there are no networks on
	// several hosts.
	Fabric fabric.Directory
	// Seal has this host's keys for encrypted tunnels. nil: there are none here.
	Seal Sealer
	// Now is the time, for how old keys are. nil: the clock's.
	Now func() time.Time
	// Pulse finds out how the ways to the other hosts of the cluster are. nil: nobody does.
	Pulse Pulse
	// Scout finds out to which hosts containers need no tunnel. nil: to none.
	Scout Scout
	// Bridges is told of our bridges, for other firewalls. May be nil.
	Bridges Bridges
	// Lender holds namespaces that somebody else made. nil: none can join.
	Lender Lender
	// Lease asks a LAN for addresses. nil: there is no IPAM driver "dhcp".
	Lease Lessor
	// Moved is told of an endpoint whose LAN gave it other addresses than before. May
	// be nil.
	Moved func(ctx context.Context, now Endpoint, before []netip.Prefix)
	// Surroundings looks at the host and the packet filters of others on it, for
	// Exposure and Doctor, which do not work without. Overlaps are filled in here.
	Surroundings func(context.Context) (doctor.Host, error)

	op    sync.Mutex // one change at a time, with its kernel work
	host  Host
	units map[string]netspec.State
	// unplanned are units whose records mean nothing to this isled: of a driver that
	// it has not, of an option that it does not take. What they have is not known.
	unplanned map[string]bool
	kick      chan struct{}     // a Sync is due
	tenants   *tenants          // hold the leases
	seats     turns             // endpoints that others are asked about
	underway  map[string]bool   // networks that others are making, or taking away
	cluster   cluster           // what it says
	ailing    map[string]string // endpoint → what others said of it last, under op

	alarms      atomic.Uint64
	repairs     uint64          // of what somebody else changed, under op like the rest
	told        time.Time       // when the last of them was logged
	overlapping map[string]bool // overlaps that were logged

	mu sync.RWMutex // guards x
	x  index
}

const machineUnit = "machine"

func networkUnit(id string) string { return "network/" + id }
func sandboxUnit(id string) string { return "sandbox/" + id }

// commit writes records and then brings the kernel in step with the units that
// fn returns: the new state of each one touched, nil for one that goes. What
// fn refuses is not committed; what the kernel refuses is taken back.
func (m *Manager) commit(ctx context.Context, fn func(tx store.Tx) (map[string]netspec.State, error)) error {
	var j *journal
	var units map[string]netspec.State
	err := m.Store.Update(ctx, func(tx store.Tx) (err error) {
		j = newJournal(tx)
		units, err = fn(j)
		return err
	})
	if err != nil {
		return err
	}
	have, want := netspec.State{}, netspec.State{}
	for u, s := range units {
		maps.Copy(have, m.units[u])
		maps.Copy(want, s)
	}
	m.keep(units, have, want)
	// From here on the operation is finished or taken back, whatever becomes of
	// the client that asked for it.
	ctx = context.WithoutCancel(ctx)
	if err := reconcile.Apply(ctx, m.Kernel, reconcile.Diff(have, want)); err != nil {
		m.resync()
		return errors.Join(err, m.Store.Update(ctx, j.restore))
	}
	for u, s := range units {
		m.announce(m.units[u], s)
		if s == nil {
			delete(m.units, u)
		} else {
			m.units[u] = s
		}
		m.planned(u)
	}
	return nil
}

// planned notes that it is known what a unit has. With the last one that was not,
// what was kept for it may go.
func (m *Manager) planned(unit string) {
	if !m.unplanned[unit] {
		return
	}
	if delete(m.unplanned, unit); len(m.unplanned) == 0 {
		m.resync()
	}
}

func (m *Manager) planner() planner { return planner{m.drivers(), m.host} }

func (m *Manager) drivers() drivers { return drivers{m.Drivers, m.Outside} }

func (m *Manager) resync() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Find takes a name, an id or a unique prefix of one.
func (m *Manager) Find(_ context.Context, ref string) (Network, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.x.find(ref)
	if err != nil {
		return Network{}, err
	}
	return *n, nil
}

// List returns all networks, by name.
func (m *Manager) List(context.Context) ([]Network, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]Network, 0, len(m.x.networks))
	for _, n := range m.x.networks {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Endpoints returns all endpoints, in no order.
func (m *Manager) Endpoints(context.Context) ([]Endpoint, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []Endpoint
	for _, sb := range m.x.sandboxes {
		for _, pl := range sb.places {
			out = append(out, pl.Endpoint)
		}
	}
	return out, nil
}

// Usage is how full each subnet of a network is.
func (m *Manager) Usage(_ context.Context, networkID string) (map[netip.Prefix]ipam.Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, ok := m.x.networks[networkID]
	if !ok {
		return nil, fmt.Errorf("network %s: %w", networkID, errdefs.ErrNotFound)
	}
	out := map[netip.Prefix]ipam.Usage{}
	for _, p := range n.Pools {
		out[p.Subnet] = m.IPAM.Usage(p.Subnet)
	}
	return out, nil
}

// Sandboxes are the containers that have one.
func (m *Manager) Sandboxes(context.Context) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Keys(m.x.sandboxes)), nil
}

// Counters reads an open sandbox's interfaces by their names inside. A sandbox
// that shares the host's namespace has none of its own.
func (m *Manager) Counters(ctx context.Context, sandboxID string) (map[string]Counters, error) {
	sb, err := m.sandbox(sandboxID)
	if err != nil || sb.NS == "" {
		return nil, err
	}
	all, err := m.Machine.Counters(ctx, sb.NS)
	if err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", sandboxID, err)
	}
	out := map[string]Counters{}
	for _, pl := range sb.places {
		if c, ok := all[pl.Interface]; ok && pl.Interface != "" {
			out[pl.Interface] = c
		}
	}
	return out, nil
}
