package network

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network/ipam"
	"isle/internal/store"
)

// draft is an endpoint without its addresses.
type draft struct {
	place
	want   network.EndpointIPAMConfig
	noIPv6 bool // the container has none
}

// foreseen is the place that d will be. Its addresses, which are not chosen yet, are
// the subnets that they will be of.
func (d draft) foreseen() place {
	pl := d.place
	pl.Addrs = nil
	if d.net.given() && len(d.net.Pools) == 0 {
		pl.Addrs = d.Wish.anywhere(d.net)
	}
	for _, p := range d.net.Pools {
		on := d.net.IPv4 || d.want.IPv4Address.IsValid()
		if p.Subnet.Addr().Is6() {
			on = d.net.IPv6 && !d.noIPv6 || d.want.IPv6Address.IsValid()
		}
		if on && d.HostInterface != "" {
			pl.Addrs = append(pl.Addrs, p.Subnet)
		}
	}
	return pl
}

// Connect puts a sandbox that is open on one more network.
func (m *Manager) Connect(ctx context.Context, sandboxID string, req ConnectRequest) (Endpoint, error) {
	pl, err := m.connect(ctx, sandboxID, req)
	if err != nil {
		return Endpoint{}, err
	}
	if err := m.obtain(ctx, []place{pl}); err != nil {
		_, undo := m.disconnect(context.WithoutCancel(ctx), sandboxID, pl.net.ID)
		return Endpoint{}, errors.Join(err, undo)
	}
	m.tell(events.ActionConnect, *pl.net, sandboxID)
	return m.endpoint(pl), nil
}

// endpoint is pl as it is now: its LAN may have given it addresses.
func (m *Manager) endpoint(pl place) Endpoint {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if now, ok := m.x.users[pl.net.ID][pl.ID]; ok {
		return now.Endpoint
	}
	return pl.Endpoint
}

// connect is Connect up to what the LAN has to give.
func (m *Manager) connect(ctx context.Context, sandboxID string, req ConnectRequest) (place, error) {
	m.op.Lock()
	defer m.op.Unlock()
	old, err := m.sandboxLocked(sandboxID)
	if err != nil {
		return place{}, err
	}
	d, err := m.draft(old.Sandbox, req, nil)
	if err != nil {
		return place{}, err
	}
	for _, pl := range old.places {
		if pl.net.ID == d.net.ID {
			return place{}, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("endpoint with name %s already exists in network %s", d.ContainerName, d.net.Name))
		}
	}
	if old.NS == "" || d.net.Driver == DriverHost {
		return place{}, errHostNetwork
	}
	drafts := []draft{d}
	if err := m.nameInterfaces(old.places, drafts); err != nil {
		return place{}, err
	}
	sb, err := m.write(ctx, old.Sandbox, old.places, drafts)
	if err != nil {
		return place{}, err
	}
	i := slices.IndexFunc(sb.places, func(pl place) bool { return pl.ID == d.ID })
	if err := m.resolve(ctx, sb); err != nil {
		return place{}, errors.Join(err, m.leave(context.WithoutCancel(ctx), sb, i))
	}
	return sb.places[i], nil
}

// Disconnect takes a sandbox that is open off a network.
func (m *Manager) Disconnect(ctx context.Context, sandboxID, networkID string) error {
	defer m.withdraw(ctx)
	pl, err := m.disconnect(ctx, sandboxID, networkID)
	if err == nil {
		m.tell(events.ActionDisconnect, *pl.net, sandboxID)
	}
	return err
}

func (m *Manager) disconnect(ctx context.Context, sandboxID, networkID string) (place, error) {
	m.giveBack(ctx, sandboxID, networkID)
	m.op.Lock()
	defer m.op.Unlock()
	old, err := m.sandboxLocked(sandboxID)
	if err != nil {
		return place{}, err
	}
	i := slices.IndexFunc(old.places, func(pl place) bool { return pl.net.ID == networkID })
	if i < 0 {
		return place{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("container %s is not connected to network %s", old.Name, m.networkName(networkID)))
	}
	if old.NS == "" {
		return place{}, errHostNetwork
	}
	if err := m.leave(ctx, old, i); err != nil {
		m.retain(old.places[i])
		return place{}, fmt.Errorf("disconnect container %s from network %s: %w", old.Name, old.places[i].net.Name, err)
	}
	return old.places[i], nil
}

// leave takes a sandbox off the network of its i-th place.
func (m *Manager) leave(ctx context.Context, old *sandbox, i int) error {
	return m.part(ctx, old, i, func(store.Tx) error { return nil })
}

// part is leave, with more in its transaction.
func (m *Manager) part(ctx context.Context, old *sandbox, i int, more func(store.Tx) error) error {
	sb := m.assemble(old.Sandbox, slices.Concat(old.places[:i], old.places[i+1:]))
	ports := turning{m: m}
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		if err := errors.Join(m.release(tx, old.places[i]), more(tx)); err != nil {
			return nil, err
		}
		if err := errors.Join(ports.to(sb), m.putHolds(tx, sb)); err != nil {
			return nil, err
		}
		s, err := m.planner().sandbox(sb.Sandbox, sb.places)
		return map[string]netspec.State{sandboxUnit(sb.ID): s}, err
	})
	ports.end(err)
	if err != nil {
		return err
	}
	m.became(sb.ID, sb)
	return m.resolve(ctx, sb)
}

func (m *Manager) networkName(id string) string {
	if n, ok := m.x.networks[id]; ok {
		return n.Name
	}
	return ids.Short(id)
}

func (m *Manager) sandboxLocked(id string) (*sandbox, error) {
	sb := m.x.sandboxes[id]
	if sb == nil {
		return nil, fmt.Errorf("the network of container %s is not open: %w", ids.Short(id), errdefs.ErrNotFound)
	}
	return sb, nil
}

func (m *Manager) sandbox(id string) (*sandbox, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sandboxLocked(id)
}

// draft reads one wish. others are those of the same request.
func (m *Manager) draft(rec Sandbox, req ConnectRequest, others []draft) (draft, error) {
	n, err := m.x.find(req.Network)
	if err != nil {
		return draft{}, err
	}
	if n.Unready {
		return draft{}, fmt.Errorf("network %s is being made or removed: %w", n.Name, errdefs.ErrUnavailable)
	}
	if n.ConfigOnly {
		return draft{}, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("network %s is a configuration-only network: containers cannot be connected to it", n.Name))
	}
	if slices.ContainsFunc(others, func(d draft) bool { return d.net.ID == n.ID }) {
		return draft{}, fmt.Errorf("network %s is named twice: %w", n.Name, errdefs.ErrInvalidArgument)
	}
	d := draft{place: place{Endpoint{
		ID: m.newEndpointID(), Network: n.ID, Sandbox: rec.ID, ContainerName: req.ContainerName,
		GwPriority: req.Settings.GwPriority, Options: req.Settings.DriverOpts, Names: names(req),
	}, n}}
	if d.ContainerName == "" {
		d.ContainerName = rec.Name
	}
	drv, err := m.planner().driver(*n)
	_, external := drv.(External)
	if err != nil || !addressed(drv) {
		return d, err
	}
	d.HostInterface = m.hostInterface(d.ID)
	d.noIPv6 = rec.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1"
	if c := req.Settings.IPAMConfig; c != nil {
		d.want = *c
	}
	d.Leases = d.wishes()
	if err := d.net.Takes(&d.want); err != nil && (d.Leased() || n.Global()) {
		return d, err
	}
	if d.LinkLocal, err = linkLocal(n, d.want.LinkLocalIPs); err != nil {
		return d, err
	}
	if external || n.given() {
		d.Wish = d.wish()
		d.Wish.DNS.Servers = rec.DNS.addresses()
	}
	if external {
		return d, d.wishMAC(req.Settings.MacAddress)
	}
	if drv.Caps().OneMAC {
		return d, noMAC(n, req.Settings.MacAddress)
	}
	d.MAC, err = mac(rec.ID, n.ID, req.Settings.MacAddress)
	if err == nil && n.Global() {
		err = m.wishShared(&d, len(req.Settings.MacAddress) > 0)
	}
	if err != nil || len(req.Settings.MacAddress) == 0 { // ours are nobody else's: nobody is asked
		return d, err
	}
	return d, m.x.soleMAC(d.place)
}

// wishMAC asks others for a MAC address when the user does.
func (d *draft) wishMAC(want network.HardwareAddr) (err error) {
	if len(want) > 0 {
		d.Wish.MAC, err = mac("", "", want)
	}
	d.MAC = d.Wish.MAC
	return err
}

func linkLocal(n *Network, want []netip.Addr) (out []netip.Prefix, err error) {
	for _, a := range want {
		bits := 64
		if a.Is4() {
			bits = 16
		}
		if !a.IsLinkLocalUnicast() || (a.Is6() && !n.IPv6) {
			return nil, fmt.Errorf("invalid link-local address %s for network %s: %w", a, n.Name, errdefs.ErrInvalidArgument)
		}
		out = append(out, netip.PrefixFrom(a, bits))
	}
	return out, nil
}

// names are what others on the network can call the container: the first is
// its answer to "who has this address".
func names(req ConnectRequest) []string {
	all := append([]string{req.ContainerName}, req.Settings.Aliases...)
	all = append(all, ids.Short(req.ContainerID))
	var out []string
	for _, n := range all {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// newEndpointID is one whose veth's name is free.
func (m *Manager) newEndpointID() string {
	for {
		id := ids.New()
		if _, used := m.x.hostIfs[m.hostInterface(id)]; !used {
			return id
		}
	}
}

func (m *Manager) hostInterface(endpointID string) string {
	return (m.Config.LinkPrefix + "v" + endpointID)[:15]
}

// mac is the same for a container on a network every time it starts, unless
// the user wants another.
func mac(sandboxID, networkID string, want network.HardwareAddr) (netspec.MAC, error) {
	var out netspec.MAC
	if len(want) == 0 {
		h := sha256.Sum256([]byte(sandboxID + "/" + networkID))
		copy(out[1:], h[:])
		out[0] = 0x02 // locally administered, unicast
		return out, nil
	}
	if len(want) != 6 || want[0]&1 != 0 || [6]byte(want) == [6]byte{} {
		return out, fmt.Errorf("invalid MAC address %s: it must be 6 bytes and not a group address: %w", want, errdefs.ErrInvalidArgument)
	}
	return netspec.MAC(want), nil
}

// noMAC refuses a MAC address where there is no choice.
func noMAC(n *Network, want network.HardwareAddr) error {
	if len(want) == 0 {
		return nil
	}
	return fmt.Errorf("network %s: %s interfaces do not support custom mac address assignment: all have that of %s: %w",
		n.Name, n.Driver, n.Options[OptParent], errdefs.ErrInvalidArgument)
}

// nameInterfaces gives the new endpoints of a sandbox the names of their
// interfaces: the user's first, then the next free ones in order.
func (m *Manager) nameInterfaces(have []place, drafts []draft) error {
	used := map[string]bool{}
	for _, pl := range have {
		used[pl.Interface] = true
	}
	for i := range drafts {
		if name := drafts[i].Options[OptIfname]; name != "" {
			if err := drafts[i].takeInterface(name, used); err != nil {
				return err
			}
		}
	}
	for i := range drafts {
		if drafts[i].Interface != "" {
			continue
		}
		prefix := cmp.Or(drafts[i].net.Options[OptIfacePrefix], "eth")
		k := 0
		for used[prefix+strconv.Itoa(k)] {
			k++
		}
		if err := drafts[i].takeInterface(prefix+strconv.Itoa(k), used); err != nil {
			return err
		}
	}
	return nil
}

// takeInterface names the interface of an endpoint, if it has one.
func (d *draft) takeInterface(name string, used map[string]bool) error {
	if d.HostInterface == "" {
		return nil
	}
	if err := CheckInterface(name); err != nil {
		return err
	}
	if used[name] {
		return fmt.Errorf("interface name %s is used twice in one container: %w", name, errdefs.ErrConflict)
	}
	used[name], d.Interface = true, name
	return nil
}

// reserve gives a draft its addresses.
func (m *Manager) reserve(tx store.Tx, d draft) (place, error) {
	pl := d.place
	pl.Addrs = nil
	for _, want := range []struct {
		v6   bool
		addr netip.Addr
		on   bool
	}{{false, d.want.IPv4Address, d.net.IPv4}, {true, d.want.IPv6Address, d.net.IPv6 && !d.noIPv6}} {
		if d.HostInterface == "" || d.net.given() || d.net.Global() || (!want.on && !want.addr.IsValid()) {
			continue
		}
		p, err := m.reserveFamily(tx, d, want.v6, want.addr)
		if err != nil {
			return pl, inNetwork(*d.net, err)
		}
		if p.IsValid() {
			pl.Addrs = append(pl.Addrs, p)
		}
	}
	pl.follow()
	return pl, nil
}

func (m *Manager) reserveFamily(tx store.Tx, d draft, v6 bool, want netip.Addr) (netip.Prefix, error) {
	var full error
	for _, p := range d.net.Pools {
		if p.Subnet.Addr().Is6() != v6 || (want.IsValid() && !p.Subnet.Contains(want)) {
			continue
		}
		a, err := m.IPAM.Reserve(tx, p.Subnet, d.ID, want)
		if errdefs.IsResourceExhausted(err) {
			full = err
			continue
		}
		if errors.Is(err, ipam.ErrInUse) {
			err = fmt.Errorf("%w: %s", err, m.x.holder(d.net, want))
		}
		return netip.PrefixFrom(a, p.Subnet.Bits()), err
	}
	switch {
	case want.IsValid():
		return netip.Prefix{}, d.net.outside(want)
	case full != nil:
		family := map[bool]string{false: "IPv4", true: "IPv6"}[v6]
		return netip.Prefix{}, errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("no available %s addresses on this network's address pools: %s (%s)", family, d.net.Name, ids.Short(d.net.ID)))
	}
	return netip.Prefix{}, nil // an IPAM driver without addresses
}

// release takes an endpoint out of the records.
func (m *Manager) release(tx store.Tx, pl place) error {
	for _, p := range pl.net.Pools {
		if _, err := m.IPAM.Release(tx, p.Subnet, pl.ID); err != nil {
			return err
		}
	}
	endpoints.Delete(tx, pl.ID)
	return nil
}

// eachLease is for the addresses that are ours to give out.
func (m *Manager) eachLease(pl place, do func(netip.Prefix, netip.Addr)) {
	if pl.Leased() {
		return
	}
	for _, a := range pl.Addrs {
		do(a.Masked(), a.Addr())
	}
}
