package network_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dhcp"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
)

// walk is one random life of a machine.
type walk struct {
	*world
	m *network.Manager
	r *rand.Rand

	plugged                          bool // with networks of plug-ins
	crashes, failures, refused, done int
	trunks, rules                    int // seen in the kernel
	lans, vlans, ways, relets        int
	seats, moods                     int // endpoints of plug-ins, and what they refused
	direct                           int // ports that were open without one of the host
}

// TestKernelFollowsRecords: whatever is done, and wherever the kernel refuses
// or the process dies, the kernel is what the records say, every lease belongs
// to an endpoint and every held port to a sandbox.
func TestKernelFollowsRecords(t *testing.T) {
	var sum walk
	for seed := range uint64(1900) {
		w := live(t, seed, 25)
		sum.crashes, sum.failures = sum.crashes+w.crashes, sum.failures+w.failures
		sum.refused, sum.done = sum.refused+w.refused, sum.done+w.done
		sum.trunks, sum.rules, sum.direct = sum.trunks+w.trunks, sum.rules+w.rules, sum.direct+w.direct
		sum.lans, sum.vlans, sum.ways = sum.lans+w.lans, sum.vlans+w.vlans, sum.ways+w.ways
		sum.relets, sum.seats, sum.moods = sum.relets+w.relets, sum.seats+w.seats, sum.moods+w.moods
	}
	t.Logf("%d done, %d refused, %d failed in the kernel, %d crashes; seen: %d trunks, %d rules, %d direct ports, %d links of a LAN, %d VLANs, %d neighbours, %d other leases, %d places of plug-ins, %d refused by them",
		sum.done, sum.refused, sum.failures, sum.crashes, sum.trunks, sum.rules, sum.direct, sum.lans, sum.vlans, sum.ways, sum.relets, sum.seats, sum.moods)
	if min(sum.done, sum.refused, sum.failures, sum.crashes, sum.trunks, sum.rules, sum.direct, sum.lans, sum.vlans, sum.ways, sum.relets, sum.seats, sum.moods) < 100 {
		t.Error("the walks do not go everywhere")
	}
}

func FuzzKernelFollowsRecords(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { live(t, seed, 25) })
}

func live(t *testing.T, seed uint64, steps int) *walk {
	w := &walk{world: newWorld(), r: rand.New(rand.NewPCG(seed, 1))}
	w.room, w.plugged = 1+int(seed%3), seed%5 < 2
	w.kernel.Parents = []string{"eth0"}
	w.machine.host.Parents = eth0
	w.m = w.start(t)
	if seed%2 == 0 { // much happens to leases only where there are some
		create(t, w.m, api.CreateRequest{Name: "l0", Driver: "macvlan", Options: map[string]string{"parent": "eth0"}, IPAM: &api.IPAM{Driver: network.IPAMDHCP}})
	}
	for i := range steps {
		what, err := w.fault(t)
		w.check(t, fmt.Sprintf("seed %d step %d: %s: %v", seed, i, what, err))
		if t.Failed() {
			t.FailNow()
		}
	}
	return w
}

// fault makes one step, in which the kernel may fail or the process die.
func (w *walk) fault(t *testing.T) (what string, err error) {
	k := w.kernel
	k.N, k.FailAt, k.CrashAt = 0, 0, 0
	switch w.r.IntN(3) {
	case 0:
		k.CrashAt = 1 + w.r.IntN(12)
	case 1:
		k.FailAt = 1 + w.r.IntN(12)
	}
	w.outside.whim = w.whim
	what, crashed, err := w.survive()
	k.CrashAt, k.FailAt, w.outside.whim = 0, 0, nil
	switch {
	case crashed: // the process is gone; another one starts on the same disk and kernel
		w.crashes++
		w.lan.forget()
		w.m = w.start(t)
	case errors.Is(err, kerneltest.ErrRefused):
		w.failures++
	case err != nil:
		w.refused++
		if class(err) == nil {
			t.Errorf("%s: error without a class: %v", what, err)
		}
	default:
		w.done++
	}
	return what, err
}

// whim has a plug-in refuse, or the process die while it is asked.
func (w *walk) whim() error {
	switch w.r.IntN(16) {
	case 0:
		panic(kerneltest.ErrCrash)
	case 1:
		w.moods++
		return fmt.Errorf("the plug-in is not in the mood: %w", errdefs.ErrUnavailable)
	}
	return nil
}

func class(err error) error {
	for _, c := range []error{errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrPermissionDenied,
		errdefs.ErrInvalidArgument, errdefs.ErrAlreadyExists, errdefs.ErrUnavailable} {
		if errors.Is(err, c) {
			return c
		}
	}
	return nil
}

func (w *walk) survive() (what string, crashed bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p != any(kerneltest.ErrCrash) {
				panic(p)
			}
			crashed = true
		}
	}()
	what, err = w.step()
	return what, false, err
}

func (w *walk) step() (string, error) {
	ctx := context.Background()
	c, n := fmt.Sprint("c", w.r.IntN(5)), w.network()
	kinds := 17
	if w.plugged {
		kinds = 19
	}
	switch w.r.IntN(kinds) {
	case 0:
		v6 := w.r.IntN(2) == 0
		req := api.CreateRequest{Name: n, EnableIPv6: &v6, Internal: w.r.IntN(4) == 0, Options: map[string]string{}}
		for _, o := range []string{network.OptGatewayMode4, network.OptGatewayMode6} {
			if w.r.IntN(4) == 0 {
				req.Options[o] = "routed"
			}
		}
		_, err := w.m.Create(ctx, req)
		return "create " + n, err
	case 1:
		_, err := w.m.Remove(ctx, n)
		return "remove " + n, err
	case 2:
		return "close " + c, w.m.Close(ctx, c)
	case 3:
		_, err := w.m.Connect(ctx, c, network.ConnectRequest{Network: n, ContainerName: c, ContainerID: c,
			Settings: api.EndpointSettings{GwPriority: w.r.IntN(3)}})
		return "connect " + c + " " + n, err
	case 4:
		id := n
		if found, err := w.m.Find(ctx, n); err == nil {
			id = found.ID
		}
		return "disconnect " + c + " " + n, w.m.Disconnect(ctx, c, id)
	case 5:
		_, err := w.m.Publish(ctx, c, w.wishes())
		return "publish on " + c, err
	case 6:
		_, err := w.m.Replace(ctx, c, w.wishes())
		return "take ports over for " + c, err
	case 7:
		s, err := publish.ParseSelector(fmt.Sprintf("%d-%d", 8000+w.r.IntN(6), 8006+w.r.IntN(3)))
		if err != nil {
			return "", err
		}
		_, err = w.m.Unpublish(ctx, c, []publish.Selector{s})
		return "unpublish on " + c, err
	case 9:
		l := fmt.Sprint("l", w.r.IntN(2))
		_, err := w.m.Create(ctx, w.onLAN(l))
		return "create " + l, err
	case 10:
		return "the parent comes or goes", w.replug(ctx)
	case 11:
		return "the LAN gives others", w.relet(ctx)
	case 17:
		x := w.r.IntN(3)
		_, err := w.m.Create(ctx, []api.CreateRequest{
			{Name: "x0", Driver: "outer"}, {Name: "x1", Driver: "half"}, {Name: "x2", IPAM: &api.IPAM{Driver: "lender"}},
		}[x])
		return fmt.Sprint("create x", x), err
	case 18:
		w.m.Visit(ctx)
		return "visit", nil
	case 8:
		_, err := w.m.SetPorts(ctx, c, w.wishes())
		return "set ports of " + c, err
	}
	nets := []string{n}
	again := w.r.IntN(5) == 0
	if w.r.IntN(2) == 0 {
		nets = append(nets, w.network())
	}
	if again {
		_, err := w.m.Reopen(ctx, request(c, w.ports(), nets...))
		return "reopen " + c + " on " + strings.Join(nets, " "), err
	}
	_, err := w.m.Open(ctx, request(c, w.ports(), nets...))
	return "open " + c + " on " + strings.Join(nets, " "), err
}

func (w *walk) network() string {
	names := []string{"bridge", "none", "host", "n0", "n1", "n2", "n0", "n1", "l0", "l1"}
	if w.plugged {
		names = append(names, "x0", "x1", "x2", "x0", "x1", "x2")
	}
	return names[w.r.IntN(len(names))]
}

// replug takes the parent away, as the kernel does it with all that is on it, or has it
// back. What cannot be repaired at once is tried again.
func (w *walk) replug(ctx context.Context) error {
	if w.machine.host.Parents == eth0 && w.r.IntN(4) == 0 {
		w.machine.host.Parents = ""
		w.kernel.Unplug()
	} else {
		w.machine.host.Parents, w.kernel.Parents = eth0, []string{"eth0"}
	}
	if w.m.Sync(ctx) == nil {
		return nil
	}
	return w.m.Sync(ctx)
}

// eth0 is the interface that networks of the LAN are on.
var eth0 = network.Parents([]network.Parent{{Name: "eth0", MTU: 1500, MAC: netspec.MAC{2, 1}, Up: true, Carrier: true, Addr4: addr("10.9.0.5")}})

// onLAN is a wish for a network on it, or on a VLAN of it, alone or beside others.
func (w *walk) onLAN(name string) api.CreateRequest {
	opts := map[string]string{"parent": []string{"eth0", "eth0.5", "eth0.5.6"}[w.r.IntN(3)], "isle.host_access": fmt.Sprint(w.r.IntN(2) == 0)}
	driver := "macvlan"
	if w.r.IntN(4) == 0 {
		driver = "ipvlan"
	}
	req := api.CreateRequest{Name: name, Driver: driver, Options: opts}
	if w.r.IntN(2) == 0 {
		req.IPAM = &api.IPAM{Driver: network.IPAMDHCP}
	}
	return req
}

// relet has the LAN give another address, or none, to somebody, or fall silent.
func (w *walk) relet(ctx context.Context) error {
	w.lan.silent = w.r.IntN(8) == 0
	if n := len(w.lan.clients); n > 0 {
		w.relets++
		w.lan.clients[w.r.IntN(n)].say(w.r.IntN(3)*(50+w.r.IntN(50)), dhcp.Altered)
	}
	w.m.FollowLeases(ctx)
	return nil
}

func (w *walk) ports() api.PortMap {
	switch w.r.IntN(3) {
	case 0:
		return ports("80/tcp", fmt.Sprintf(":%d", 8000+w.r.IntN(3)))
	case 1:
		return ports("53/udp", "127.0.0.1:0", ":53")
	}
	return nil
}

// wishes are ports of the other forms: rows, interfaces, allow-lists.
func (w *walk) wishes() network.PortRequest {
	first := 8000 + w.r.IntN(6)
	last := w.r.IntN(3)
	text := fmt.Sprintf("%d-%d:80-%d", first, first+last, 80+last)
	switch w.r.IntN(4) {
	case 0:
		text = "if=eth9:" + text
	case 1:
		text += ";from=10.0.0.0/8,fd00::/8"
	case 2:
		text = "127.0.0.1:" + text
	}
	specs, err := publish.ParseSpecs(text)
	if err != nil {
		panic(err)
	}
	return network.PortRequest{Specs: specs, Bindings: w.ports()}
}

func (w *walk) check(t *testing.T, at string) {
	t.Helper()
	eps, err := w.m.Endpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addrs, held := 0, 0
	leases := 0
	for _, ep := range eps {
		leases += len(ep.Leases)
		n, _ := w.m.Find(t.Context(), ep.Network)
		if n.IPAMDriver == "default" {
			addrs += len(ep.Addrs)
		}
	}
	if n := w.lan.holding(); n > leases {
		t.Errorf("%s\n%d leases are held, for %d that endpoints are to have", at, n, leases)
	}
	if want := w.want(t); !w.kernel.State.Equal(want) {
		t.Errorf("%s\nthe kernel is not what the records say:\n%v", at, reconcile.Diff(w.kernel.State, want))
	}
	for _, o := range w.kernel.State {
		switch o := o.(type) {
		case netspec.Rule:
			w.rules++
		case netspec.LAN:
			w.lans++
		case netspec.VLAN:
			w.vlans++
		case netspec.Neigh:
			w.ways++
		case netspec.Link:
			if o.PeerMaster != "" {
				w.trunks++
			}
		}
	}
	for _, k := range w.keys("ipam/") {
		if strings.Contains(k, "/owner/") {
			addrs--
		}
	}
	if addrs != 0 {
		t.Errorf("%s\n%d addresses of endpoints are without a lease", at, addrs)
	}
	for _, k := range w.keys("sandbox/") {
		taken, direct := w.taken(strings.TrimPrefix(k, "sandbox/"))
		held += len(taken)
		w.direct += len(direct)
	}
	for _, k := range w.keys("sandbox/") {
		w.checkShown(t, at, strings.TrimPrefix(k, "sandbox/"))
	}
	if n := len(w.keys("publish/")); n != held {
		t.Errorf("%s\n%d ports are held, %d published", at, n, held)
	}
	w.checkTable(t, at)
	w.checkOutside(t, w.m, at)
	w.seats += len(w.outside.seats)
}

// taken are a sandbox's ports for which one of the host is taken, and those for
// which none is.
func (w *walk) taken(id string) (taken, direct []publish.Mapping) {
	for _, p := range w.published(id) {
		if m := publish.Mapping(p); w.m.Ports.Direct(id, m) {
			direct = append(direct, m)
		} else {
			taken = append(taken, m)
		}
	}
	return taken, direct
}

// checkShown: a port of the host is shown where one is taken, and only there.
func (w *walk) checkShown(t *testing.T, at, id string) {
	t.Helper()
	_, shown, err := w.m.Published(id)
	if err != nil {
		t.Fatal(err)
	}
	taken, direct := w.taken(id)
	for port, bs := range shown {
		for _, b := range bs {
			among, number := taken, b.HostPort
			if number == "" {
				among = direct
			}
			if !slices.ContainsFunc(slices.Collect(publish.Each(among)), func(m publish.Mapping) bool {
				return m.HostIP == b.HostIP && m.ContainerPort == port.Num() && (number == "" || number == fmt.Sprint(m.HostPort))
			}) {
				t.Errorf("%s\n%s shows %v for %v; taken %v, without one of the host %v", at, id, b, port, taken, direct)
			}
		}
	}
}

// checkTable: whoever asks is told of exactly the ports that are in the records.
func (w *walk) checkTable(t *testing.T, at string) {
	t.Helper()
	var all []publish.Mapping
	for _, k := range w.keys("sandbox/") {
		taken, _ := w.taken(strings.TrimPrefix(k, "sandbox/"))
		all = append(all, taken...)
	}
	for port := uint16(8000); port < 8010; port++ {
		for _, ip := range []string{"0.0.0.0", "::"} {
			r := publish.Request{Proto: "tcp", ContainerPort: 1, HostIPs: []netip.Addr{addr(ip)}, First: port, Last: port, Count: 1}
			got, err := w.m.Ports.Claim("somebody", []publish.Request{r}, func(id string) string { return id })
			w.m.Ports.Release("somebody", got)
			sel := publish.Selector{Proto: "tcp", First: port, Last: port}
			used := slices.ContainsFunc(sel.Select(all), func(m publish.Mapping) bool { return m.HostIP.Is4() == addr(ip).Is4() })
			if used == (err == nil) {
				t.Errorf("%s\nport %s:%d is in the records: %t; in the table: %v", at, ip, port, used, err)
			}
		}
	}
}

// TestTogether: a hundred containers at once, on two networks, with ports. In
// the end nothing is left of them.
func TestTogether(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "app"})
	bare := len(w.kernel.State)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			id := fmt.Sprint("c", i)
			if _, err := m.Open(t.Context(), request(id, ports("80/tcp", ":0"), "app")); err != nil {
				t.Error(err)
				return
			}
			_, err := m.Connect(t.Context(), id, network.ConnectRequest{Network: "bridge", ContainerName: id})
			if _, lerr := m.Endpoints(t.Context()); err != nil || lerr != nil {
				t.Error(err, lerr)
			}
			if i%10 == 0 {
				if err := m.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if err := m.Close(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(w.keys("ipam/")) + len(w.keys("sandbox/")) + len(w.keys("endpoint/")) + len(w.keys("publish/")); n != 0 || len(w.kernel.State) != bare {
		t.Errorf("%d records and %d objects are left", n, len(w.kernel.State)-bare)
	}
}
