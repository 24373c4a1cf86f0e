package engine

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	networktypes "github.com/moby/moby/api/types/network"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/config"
	"isle/internal/container"
	"isle/internal/event"
	"isle/internal/ids"
	"isle/internal/image"
	"isle/internal/network"
	"isle/internal/network/ipam"
	"isle/internal/network/publish"
	"isle/internal/runtime"
	"isle/internal/runtime/spec"
	"isle/internal/store"
)

// memory is a Store that forgets when the test ends, and not before: a second
// engine on it is isled after a crash.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
	// fail, when set, makes commits fail.
	fail error
}

func (s *memory) View(_ context.Context, fn func(store.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fn(tx(s.m))
}

func (s *memory) Update(_ context.Context, fn func(store.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	t := tx(maps.Clone(s.m))
	if err := fn(t); err != nil {
		return err
	}
	s.m = t
	return nil
}

type tx map[string][]byte

func (t tx) Get(k string) ([]byte, bool) { b, ok := t[k]; return b, ok }
func (t tx) Put(k string, b []byte)      { t[k] = b }
func (t tx) Delete(k string)             { delete(t, k) }
func (t tx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(t)) {
			if strings.HasPrefix(k, prefix) && !yield(k, t[k]) {
				return
			}
		}
	}
}

// fakeRuntime is the shim: it outlives engines.
type fakeRuntime struct {
	mu    sync.Mutex
	procs map[runtime.Proc]*fakeProc
	exits []runtime.Exit // not acknowledged
	out   chan runtime.Exit
	log   []string

	createErr, startErr error
	createErrs          int                            // how often createErr is given; 0: always
	onStart             func(p runtime.Proc)           // after a process began to run
	deaf                bool                           // SIGTERM is ignored
	say                 string                         // what an attached client hears
	execCode            func(cmd []string) (int, bool) // false: it goes on
	deleteErr           error
	joined              atomic.Int32 // clients
}

type fakeProc struct {
	started, over bool
	done          chan struct{}
}

func newFakeRuntime() *fakeRuntime { return &fakeRuntime{procs: map[runtime.Proc]*fakeProc{}} }

func (r *fakeRuntime) note(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *fakeRuntime) Filter(runtime.Runtime, *specs.Spec) string { return "" }

func (r *fakeRuntime) Create(_ context.Context, req runtime.Create) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.createErr != nil {
		err := r.createErr
		if r.createErrs--; r.createErrs == 0 {
			r.createErr = nil
		}
		return 0, err
	}
	p := runtime.Proc{ID: req.ID}
	if r.procs[p] != nil {
		return 0, fmt.Errorf("container %s exists: %w", req.ID, errdefs.ErrAlreadyExists)
	}
	r.note("create")
	r.procs[p] = &fakeProc{done: make(chan struct{})}
	return os.Getpid(), nil
}

func (r *fakeRuntime) Start(_ context.Context, id string) error {
	p := runtime.Proc{ID: id}
	r.mu.Lock()
	if r.startErr != nil {
		defer r.mu.Unlock()
		return r.startErr
	}
	r.note("start")
	r.procs[p].started = true
	r.mu.Unlock()
	if r.onStart != nil {
		r.onStart(p)
	}
	return nil
}

// exit ends a process.
func (r *fakeRuntime) exit(p runtime.Proc, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exitLocked(runtime.Exit{Proc: p, Code: code, At: time.Now()})
}

func (r *fakeRuntime) exitLocked(x runtime.Exit) {
	pr := r.procs[x.Proc]
	if pr == nil || pr.over {
		return
	}
	pr.over = true
	close(pr.done)
	r.exits = append(r.exits, x)
	if r.out != nil {
		r.out <- x
	}
}

func (r *fakeRuntime) Exec(_ context.Context, p runtime.Proc, process *specs.Process, _ runtime.Stdio) (int, error) {
	r.mu.Lock()
	if r.procs[p] == nil {
		r.procs[p] = &fakeProc{done: make(chan struct{})}
	}
	r.procs[p].started = true
	r.mu.Unlock()
	if code, ends := r.execCode(process.Args); ends {
		r.exit(p, code)
	}
	return 4711, nil
}

func (r *fakeRuntime) Kill(_ context.Context, p runtime.Proc, sig int, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pr := r.procs[p]
	if pr == nil || pr.over {
		return fmt.Errorf("no process: %w", errdefs.ErrNotFound)
	}
	r.note("kill %d", sig)
	if sig == 9 || sig == 15 && !r.deaf {
		r.exitLocked(runtime.Exit{Proc: p, Code: 128 + sig, At: time.Now()})
	}
	return nil
}

func (r *fakeRuntime) Pause(context.Context, string) error                         { return nil }
func (r *fakeRuntime) Resume(context.Context, string) error                        { return nil }
func (r *fakeRuntime) Update(context.Context, string, *specs.LinuxResources) error { return nil }
func (r *fakeRuntime) Resize(context.Context, runtime.Proc, uint16, uint16) error  { return nil }
func (r *fakeRuntime) Pids(context.Context, string) ([]int, error)                 { return []int{os.Getpid()}, nil }
func (r *fakeRuntime) Find(name string) (runtime.Runtime, error) {
	if name != "" && name != "crun" {
		return runtime.Runtime{}, errdefs.ErrNotFound
	}
	return runtime.Runtime{Name: "crun", Path: "/usr/bin/crun"}, nil
}
func (r *fakeRuntime) Names() map[string]runtime.Runtime { return nil }

func (r *fakeRuntime) Delete(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deleteErr != nil {
		return r.deleteErr
	}
	p := runtime.Proc{ID: id}
	r.exitLocked(runtime.Exit{Proc: p, Code: 137, At: time.Now()})
	delete(r.procs, p)
	return nil
}

func (r *fakeRuntime) Attach(ctx context.Context, p runtime.Proc, a runtime.Attach) error {
	r.mu.Lock()
	pr := r.procs[p]
	if pr == nil && a.Wait {
		pr = &fakeProc{done: make(chan struct{})}
		r.procs[p] = pr
	}
	r.mu.Unlock()
	if pr == nil {
		return errdefs.ErrNotFound
	}
	r.joined.Add(1)
	if a.Ready != nil {
		a.Ready()
	}
	if a.Out != nil {
		io.WriteString(a.Out, r.say)
	}
	return until(ctx, pr.done)
}

func (r *fakeRuntime) List(context.Context) ([]runtime.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []runtime.Status
	for p, pr := range r.procs {
		s := runtime.Status{Proc: p, Pid: os.Getpid(), Started: pr.started}
		for _, x := range r.exits {
			if x.Proc == p {
				s.Exit = &x
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (r *fakeRuntime) Exits(ctx context.Context) <-chan runtime.Exit {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan runtime.Exit, 10000)
	for _, x := range r.exits {
		ch <- x
	}
	r.out = ch
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.out = nil
		close(ch)
	})
	return ch
}

func (r *fakeRuntime) Ack(_ context.Context, p runtime.Proc) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exits = slices.DeleteFunc(r.exits, func(x runtime.Exit) bool { return x.Proc == p })
	return nil
}

func (r *fakeRuntime) left() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.procs)
}

// fakeNetworks has the default networks and any that the test adds.
type fakeNetworks struct {
	mu      sync.Mutex
	span    network.Span
	nets    []network.Network
	open    map[string]network.OpenRequest
	ports   map[string][]network.Publish
	openErr error
	// portsErr is given to every change of ports.
	portsErr error
	next     byte
	renamed  []string
	// unplugged are "sandbox network" of every Disconnect.
	unplugged []string
	reopened  int
	usage     map[netip.Prefix]ipam.Usage // of every network
	overlaps  map[string][]ipam.Foreign
	uplinks   map[string]string
	endpoints []network.Endpoint
}

func newFakeNetworks() *fakeNetworks {
	n := &fakeNetworks{open: map[string]network.OpenRequest{}, ports: map[string][]network.Publish{}, next: 1}
	for i, name := range []string{"bridge", "host", "none", "app"} {
		d := map[string]string{"app": "bridge", "none": "null"}[name]
		if d == "" {
			d = name
		}
		net := network.Network{ID: ids.New(), Name: name, Driver: d, Scope: "local", IPv4: true}
		if d == "bridge" {
			p := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", i))
			net.Pools = []network.Pool{{Subnet: p, Gateway: p.Addr().Next()}}
		}
		n.nets = append(n.nets, net)
	}
	return n
}

func (n *fakeNetworks) DriverNames() []string { return []string{"bridge", "host"} }

func (n *fakeNetworks) KnowsDriver(name string) bool { return slices.Contains(n.DriverNames(), name) }
func (n *fakeNetworks) Create(context.Context, networktypes.CreateRequest) (network.Network, error) {
	return network.Network{}, errdefs.ErrNotImplemented
}
func (n *fakeNetworks) Remove(context.Context, string) (network.Network, error) {
	return network.Network{}, nil
}
func (n *fakeNetworks) Find(_ context.Context, ref string) (network.Network, error) {
	for _, net := range n.nets {
		if net.Name == ref || net.ID == ref || len(ref) > 3 && strings.HasPrefix(net.ID, ref) {
			return net, nil
		}
	}
	return network.Network{}, notFound("network %s not found", ref)
}
func (n *fakeNetworks) List(context.Context) ([]network.Network, error) { return n.nets, nil }
func (n *fakeNetworks) Endpoints(context.Context) ([]network.Endpoint, error) {
	return n.endpoints, nil
}

func (n *fakeNetworks) Usage(context.Context, string) (map[netip.Prefix]ipam.Usage, error) {
	return n.usage, nil
}

func (n *fakeNetworks) Overlaps(context.Context) (map[string][]ipam.Foreign, error) {
	return n.overlaps, nil
}

func (n *fakeNetworks) Span(context.Context, string) (network.Span, error) { return n.span, nil }

func (n *fakeNetworks) Uplink(_ context.Context, id string) (string, error) {
	return n.uplinks[id], nil
}

func (n *fakeNetworks) Open(_ context.Context, req network.OpenRequest) (network.Opened, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.openErr != nil {
		return network.Opened{}, n.openErr
	}
	if _, ok := n.open[req.ID]; ok {
		return network.Opened{}, errdefs.ErrAlreadyExists
	}
	n.open[req.ID] = req
	out := network.Opened{NSPath: "/run/netns/" + req.ID, Ports: networktypes.PortMap{}}
	for i, c := range req.Networks {
		out.Endpoints = append(out.Endpoints, n.endpoint(req.ID, fmt.Sprint("eth", i), c))
	}
	n.ports[req.ID] = settlePorts(req.Ports)
	out.Ports = publish.Show(mappingsOf(n.ports[req.ID]), noneDirect)
	return out, nil
}

// Reopen is another Open that is counted.
func (n *fakeNetworks) Reopen(ctx context.Context, req network.OpenRequest) (network.Opened, error) {
	n.mu.Lock()
	n.reopened++
	delete(n.open, req.ID)
	n.mu.Unlock()
	return n.Open(ctx, req)
}

func (n *fakeNetworks) endpoint(id, ifname string, c network.ConnectRequest) network.Endpoint {
	net, _ := n.Find(context.Background(), c.Network)
	n.next++
	b := net.Pools[0].Subnet.Addr().As4()
	b[3] = n.next
	return network.Endpoint{ID: ids.New(), Network: c.Network, Sandbox: id, Interface: ifname, ContainerName: c.ContainerName,
		Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(b), 24)}, Names: []string{c.ContainerName}}
}

func (n *fakeNetworks) Close(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, id)
	delete(n.ports, id)
	return nil
}
func (n *fakeNetworks) Connect(_ context.Context, id string, c network.ConnectRequest) (network.Endpoint, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	req, ok := n.open[id]
	if !ok {
		return network.Endpoint{}, errdefs.ErrNotFound
	}
	req.Networks = append(slices.Clone(req.Networks), c)
	n.open[id] = req
	return n.endpoint(id, "eth9", c), nil
}
func (n *fakeNetworks) Disconnect(_ context.Context, id, networkID string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	req := n.open[id]
	left := slices.DeleteFunc(slices.Clone(req.Networks), func(c network.ConnectRequest) bool { return c.Network == networkID })
	if len(left) == len(req.Networks) {
		return fmt.Errorf("it is not connected to network %s: %w", networkID, errdefs.ErrNotFound)
	}
	req.Networks = left
	n.open[id] = req
	n.unplugged = append(n.unplugged, id+" "+networkID)
	return nil
}

func (n *fakeNetworks) SeatsOf(id string) (all []network.Seat) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.open[id].Networks {
		all = append(all, network.Seat{Sandbox: id, Network: c.Network})
	}
	return all
}

// settlePorts is what became of a request, with 32768 for any free port.
func settlePorts(want network.PortRequest) []network.Publish {
	reqs, _ := publish.Parse(want.Bindings, want.Specs, publish.Defaults{})
	var out []network.Publish
	for _, r := range reqs {
		for _, ip := range r.HostIPs {
			out = append(out, network.Publish{Proto: r.Proto, HostIP: ip, Iface: r.Iface, HostPort: cmp.Or(r.First, 32768), Count: r.Count, ContainerPort: r.ContainerPort, From: r.From})
		}
	}
	return out
}

// change is what the Manager's verbs do, without conflicts of ports.
func (n *fakeNetworks) change(id string, fn func(have []network.Publish) ([]network.Publish, network.Ports, error)) (network.Ports, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.portsErr != nil {
		return network.Ports{}, n.portsErr
	}
	have, out, err := fn(n.ports[id])
	if err == nil {
		n.ports[id] = have
	}
	return out, err
}

func (n *fakeNetworks) Publish(_ context.Context, id string, want network.PortRequest) (network.Ports, error) {
	return n.change(id, func(have []network.Publish) ([]network.Publish, network.Ports, error) {
		added := settlePorts(want)
		return slices.Concat(have, added), network.Ports{Added: added}, nil
	})
}

func (n *fakeNetworks) Replace(ctx context.Context, id string, want network.PortRequest) (network.Ports, error) {
	lost := map[string][]network.Publish{}
	n.mu.Lock()
	for other, have := range n.ports {
		keep := publish.Without(mappingsOf(have), mappingsOf(settlePorts(want)))
		var kept []network.Publish
		for _, m := range keep {
			kept = append(kept, network.Publish(m))
		}
		for _, p := range have {
			if !slices.Contains(kept, p) && other != id {
				lost[other] = append(lost[other], p)
			}
		}
		n.ports[other] = kept
	}
	n.mu.Unlock()
	out, err := n.Publish(ctx, id, want)
	out.Lost = lost
	return out, err
}

func (n *fakeNetworks) Unpublish(_ context.Context, id string, which []publish.Selector) (network.Ports, error) {
	return n.change(id, func(have []network.Publish) (left []network.Publish, out network.Ports, err error) {
		ms := mappingsOf(have)
		for _, s := range which {
			hit := s.Select(ms)
			if len(hit) == 0 {
				return nil, out, errdefs.ErrNotFound
			}
			for _, m := range hit {
				out.Removed = append(out.Removed, network.Publish(m))
			}
			ms = publish.Without(ms, hit)
		}
		for _, m := range ms {
			left = append(left, network.Publish(m))
		}
		return left, out, nil
	})
}

func (n *fakeNetworks) SetPorts(ctx context.Context, id string, want network.PortRequest) (network.Ports, error) {
	if err := ctx.Err(); err != nil {
		return network.Ports{}, err
	}
	return n.change(id, func([]network.Publish) ([]network.Publish, network.Ports, error) {
		return settlePorts(want), network.Ports{}, nil
	})
}

func (n *fakeNetworks) PortWarnings(networks []string) []string {
	return []string{"ports on " + strings.Join(networks, ", ")}
}

func (n *fakeNetworks) Published(id string) ([]network.Publish, networktypes.PortMap, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	req, ok := n.open[id]
	if !ok {
		return nil, nil, errdefs.ErrNotFound
	}
	if len(req.Networks) == 0 { // nothing leads to them
		return n.ports[id], nil, nil
	}
	return n.ports[id], publish.Show(mappingsOf(n.ports[id]), noneDirect), nil
}

func (n *fakeNetworks) Rename(_ context.Context, id, from, to string) error {
	n.renamed = append(n.renamed, from+" "+to)
	return nil
}
func (n *fakeNetworks) Path(id string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.open[id]; !ok {
		return "", errdefs.ErrNotFound
	}
	return "/run/netns/" + id, nil
}
func (n *fakeNetworks) Sandboxes(context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.open)), nil
}
func (n *fakeNetworks) Counters(context.Context, string) (map[string]network.Counters, error) {
	return nil, nil
}
func (n *fakeNetworks) left() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open)
}

// fakeImages has one image, whose files are in dir. What the engine does not
// call in these tests is the embedded nil.
type fakeImages struct {
	Images
	dir       string
	mu        sync.Mutex
	rootfs    map[string]bool
	cfg       dockerspec.DockerOCIImageConfig
	removeErr error
}

func (f *fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (image.Image, error) {
	if ref != "toolbox" {
		return image.Image{}, notFound("No such image: %s", ref)
	}
	return image.Image{ID: "sha256:abc", Name: ref, Config: dockerspec.DockerOCIImage{Config: f.cfg},
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}, nil
}
func (f *fakeImages) EnsureBuiltin(context.Context, string) error { return nil }
func (f *fakeImages) PrepareRootfs(_ context.Context, id string, _ image.Image) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rootfs[id] = true
	return nil
}
func (f *fakeImages) RootfsMounts(context.Context, string) ([]runtime.Mount, error) {
	return []runtime.Mount{{Type: "bind", Source: f.dir, Options: []string{"rbind"}}}, nil
}
func (f *fakeImages) RemoveRootfs(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.removeErr != nil {
		return f.removeErr
	}
	delete(f.rootfs, id)
	return nil
}
func (f *fakeImages) RootfsUsage(context.Context, string) (int64, int64, error) { return 10, 100, nil }
func (f *fakeImages) Rootfses(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.rootfs)), nil
}
func (f *fakeImages) List(context.Context, image.ListOptions) ([]imagetypes.Summary, error) {
	return nil, nil
}
func (f *fakeImages) Driver() (string, []string) { return "overlayfs", nil }
func (f *fakeImages) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rootfs)
}

type fakeVolumes struct {
	mu      sync.Mutex
	m       map[string]volumetypes.Volume
	filled  []string
	fillErr error
}

func (v *fakeVolumes) Create(_ context.Context, req volumetypes.CreateRequest) (volumetypes.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vol := volumetypes.Volume{Name: req.Name, Driver: "local", Mountpoint: "/tmp", Labels: req.Labels}
	v.m[req.Name] = vol
	return vol, nil
}
func (v *fakeVolumes) Find(_ context.Context, name string) (volumetypes.Volume, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if vol, ok := v.m[name]; ok {
		return vol, nil
	}
	return volumetypes.Volume{}, errdefs.ErrNotFound
}
func (v *fakeVolumes) List(context.Context) ([]volumetypes.Volume, error) { return nil, nil }
func (v *fakeVolumes) Remove(_ context.Context, name string, _ bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.m, name)
	return nil
}
func (v *fakeVolumes) Mount(context.Context, string, string) (string, error) { return "/tmp", nil }
func (v *fakeVolumes) Unmount(context.Context, string, string) error         { return nil }
func (v *fakeVolumes) Fill(_ context.Context, name string, _ []runtime.Mount, dir string) error {
	v.filled = append(v.filled, dir)
	return v.fillErr
}
func (v *fakeVolumes) Usage(context.Context, string) (int64, error) { return 0, nil }
func (v *fakeVolumes) left() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.m)
}

// world is an engine with everything around it.
type world struct {
	*Engine
	t        *testing.T
	store    *memory
	runtime  *fakeRuntime
	networks *fakeNetworks
	images   *fakeImages
	volumes  *fakeVolumes
	live     <-chan events.Message
	stop     func() // ends isled, as SIGTERM does
}

// newWorld starts an engine on an empty machine.
func newWorld(t *testing.T) *world {
	w := &world{t: t, store: &memory{m: map[string][]byte{}}, runtime: newFakeRuntime(), networks: newFakeNetworks(),
		images:  &fakeImages{dir: t.TempDir(), rootfs: map[string]bool{}, cfg: dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}}}},
		volumes: &fakeVolumes{m: map[string]volumetypes.Volume{}}}
	w.runtime.execCode = func([]string) (int, bool) { return 0, true }
	w.Engine = &Engine{}
	conf := config.Default()
	conf.DataDir, conf.RunDir = t.TempDir(), t.TempDir()
	w.Engine.Config = conf
	w.boot()
	return w
}

// boot starts isled on what is there.
func (w *world) boot() {
	w.t.Helper()
	conf := w.Engine.Config
	w.Engine = &Engine{Config: conf, Store: w.store, Images: w.images, Runtime: w.runtime, Networks: w.networks, Volumes: w.volumes,
		Bus: &event.Bus{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Host: spec.Host{CgroupNS: true}}
	_, w.live, _ = w.Bus.Subscribe(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	if err := w.Restore(ctx); err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	e := w.Engine
	go func() {
		defer close(done)
		e.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(func() { w.stop() })
}

func (w *world) create(name string, change ...func(*container.CreateOptions)) string {
	w.t.Helper()
	opts := container.CreateOptions{Name: name, Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{}}
	for _, fn := range change {
		fn(&opts)
	}
	r, err := w.ContainerCreate(w.t.Context(), opts)
	if err != nil {
		w.t.Fatalf("create %s: %v", name, err)
	}
	return r.ID
}

func (w *world) start(ref string) {
	w.t.Helper()
	if err := w.ContainerStart(w.t.Context(), ref); err != nil {
		w.t.Fatalf("start %s: %v", ref, err)
	}
}

func (w *world) wait(ref string, cond apitypes.WaitCondition) <-chan container.WaitResult {
	w.t.Helper()
	ch, err := w.ContainerWait(w.t.Context(), ref, cond)
	if err != nil {
		w.t.Fatalf("wait %s: %v", ref, err)
	}
	return ch
}

// get waits for a result, but not for ever.
func (w *world) get(ch <-chan container.WaitResult) container.WaitResult {
	w.t.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("nobody was told")
		return container.WaitResult{}
	}
}

func (w *world) state(ref string) *apitypes.State {
	w.t.Helper()
	in, err := w.ContainerInspect(w.t.Context(), ref, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return in.State
}

// eventually waits until ok.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// heard are the events so far, as words.
func (w *world) heard() []string {
	var out []string
	for {
		select {
		case m := <-w.live:
			out = append(out, string(m.Type)+" "+string(m.Action))
		default:
			return out
		}
	}
}

// empty checks that nothing is left of any container.
func (w *world) empty() {
	w.t.Helper()
	w.eventually("everything gone", func() bool {
		return w.runtime.left() == 0 && w.networks.left() == 0 && w.images.left() == 0 && len(w.all()) == 0 && len(w.names()) == 0
	})
	for _, dir := range []string{w.Engine.Config.DataDir + "/containers", w.Engine.Config.RunDir + "/bundles", w.Engine.Config.RunDir + "/shm"} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			w.t.Errorf("left in %s: %v", dir, left)
		}
	}
	for k := range w.store.m {
		w.t.Errorf("record left: %s", k)
	}
}

func (w *world) names() map[string]string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return maps.Clone(w.byName)
}

func noneDirect(publish.Mapping) bool { return false }
