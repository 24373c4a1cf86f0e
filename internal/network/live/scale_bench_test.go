package live_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"isle/internal/cluster/directory"
	"isle/internal/fabric"
	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
)

// These are the numbers of docs/benchmarks.md, "Clusters": a real etcd, the directory of
// each host, its networks, and a kernel's namespace for each. All are in one process.

const scalePrefix = "/isle/"

// follower is a host of which the parts of following are timed.
type follower struct {
	*member
	directory *directory.Directory
	times     *timedKernel
	heard     *timedDirectory
	forget    func() // ends what runs
}

// timedKernel is how long changes of the kernel took, and how many stations it has.
type timedKernel struct {
	*kernel.Kernel
	spent, calls, stations atomic.Int64
}

func (k *timedKernel) Apply(ctx context.Context, changes []reconcile.Change) (int, error) {
	begun := time.Now()
	n, err := k.Kernel.Apply(ctx, changes)
	k.spent.Add(int64(time.Since(begun)))
	k.calls.Add(1)
	k.stations.Add(stations(changes[:n]))
	return n, err
}

// stations are how many more there are.
func stations(changes []reconcile.Change) (n int64) {
	for _, c := range changes {
		if _, was := c.Old.(netspec.FDB); was {
			n--
		}
		if _, is := c.New.(netspec.FDB); is {
			n++
		}
	}
	return n
}

// timedDirectory is how long the Manager was busy with news.
type timedDirectory struct {
	*directory.Directory
	spent, calls atomic.Int64
}

func (d *timedDirectory) Watch(ctx context.Context, fn func(fabric.Change)) error {
	return d.Directory.Watch(ctx, func(c fabric.Change) {
		begun := time.Now()
		fn(c)
		d.spent.Add(int64(time.Since(begun)))
		d.calls.Add(1)
	})
}

// followers are hosts of one cluster that is in srv.
func followers(b *testing.B, srv *etcdtest.Server, n int) (all []*follower) {
	b.Helper()
	run(b, "ip", "link", "set", "lo", "up") // where etcd is
	wire := kerneltest.NewNS(b)
	wire.IP("link add lan type bridge\nlink set lan up")
	for i := range n {
		f := &follower{member: newMember(b, wire, i+1)}
		id := fmt.Sprint("h", i)
		f.directory = directory.New(directory.Config{
			Store: etcd.Store{Client: srv.Client(b), Prefix: scalePrefix}, TTL: time.Minute, Timeout: time.Minute,
			Self: fabric.Host{ID: id, Name: id, Addr: netip.AddrFrom4([4]byte{10, 8, 0, byte(i + 1)})},
		})
		f.times, f.heard = &timedKernel{Kernel: f.kernel}, &timedDirectory{Directory: f.directory}
		f.m = f.manager()
		f.m.Kernel, f.m.Fabric, f.m.Ports, f.m.Seal = f.times, f.heard, &publish.Table{}, f.keys
		f.start()
		b.Cleanup(f.forget)
		all = append(all, f)
	}
	return all
}

func (f *follower) start() {
	f.t.Helper()
	if err := f.m.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = f.directory.Run(ctx) })
	done.Go(func() { _ = f.m.Run(ctx) })
	f.forget = func() { cancel(); done.Wait() }
	soon(f.t, "the cluster is known", func() bool { return f.directory.View().Known })
}

// entries are the stations that the kernel has behind tunnels.
func (f *follower) entries() int { return len(f.behind()) }

// roomy makes a network with room for all.
func roomy(b *testing.B, f *follower) (n network.Network) {
	b.Helper()
	soon(b, "the host is in the cluster", func() (made bool) {
		var err error
		n, err = f.m.Create(b.Context(), api.CreateRequest{Name: "app", Driver: "overlay", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("10.128.0.0/12")}}}})
		return err == nil
	})
	return n
}

const watched = 10000

// BenchmarkWatched: 10,000 endpoints of 100 other hosts appear in etcd while a host
// watches, one transaction each as hosts write them, until its kernel has all of them;
// and the same when they are there already, and its first container comes.
func BenchmarkWatched(b *testing.B) {
	for range b.N {
		srv := etcdtest.Start(b)
		f := followers(b, srv, 1)[0]
		n := roomy(b, f)
		f.open(f.m, "own", nil, "app")
		c := srv.Client(b)
		writeHosts(b, c, 100)
		before := resources()
		f.reset()
		begun := time.Now()
		writeEndpoints(b, c, n.ID, watched)
		written := time.Since(begun)
		soon(b, "the kernel has them", func() bool { return f.times.stations.Load() == watched })
		report(b, "watch", time.Since(begun), map[string]time.Duration{"written": written, "heard": f.heard.took(), "kernel": f.times.took()})
		b.ReportMetric(float64(f.times.calls.Load()), "watch-kernel-calls")
		after := resources()
		b.ReportMetric(float64(after.heap-before.heap)/watched, "isled-B/endpoint")
		b.ReportMetric(float64(after.slab-before.slab)/watched, "slab-B/endpoint")
		if got := f.entries(); got != watched {
			b.Fatalf("the kernel has %d stations, want %d", got, watched)
		}
		if err := f.m.Close(b.Context(), "own"); err != nil {
			b.Fatal(err)
		}
		f.reset()
		begun = time.Now()
		f.open(f.m, "own", nil, "app")
		report(b, "wake", time.Since(begun), map[string]time.Duration{"kernel": f.times.took()})
		if got := f.entries(); got != watched {
			b.Fatalf("the kernel has %d stations after it woke, want %d", got, watched)
		}
	}
}

func (f *follower) reset() {
	f.heard.spent.Store(0)
	f.times.spent.Store(0)
	f.times.calls.Store(0)
}

func (d *timedDirectory) took() time.Duration { return time.Duration(d.spent.Load()) }
func (k *timedKernel) took() time.Duration    { return time.Duration(k.spent.Load()) }

// report is how long something took, and its parts, which may overlap.
func report(b *testing.B, what string, all time.Duration, parts map[string]time.Duration) {
	b.ReportMetric(float64(all.Milliseconds()), what+"-ms")
	for part, d := range parts {
		b.ReportMetric(float64(d.Milliseconds()), what+"-"+part+"-ms")
	}
}

// usage is what is held: by this process, and by the kernel for everybody on the machine.
type usage struct{ heap, slab uint64 }

var slabLine = regexp.MustCompile(`(?m)^Slab: +(\d+) kB$`)

func resources() usage {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b, _ := os.ReadFile("/proc/meminfo")
	kb, _ := strconv.ParseUint(string(slabLine.FindSubmatch(b)[1]), 10, 64)
	return usage{m.HeapAlloc, kb << 10}
}

// writeHosts writes hosts down that are nowhere else.
func writeHosts(b *testing.B, c *clientv3.Client, n int) {
	b.Helper()
	for i := range n {
		v := fmt.Sprintf(`{"ID":"far%d","Name":"far%d","Addr":"10.9.0.%d"}`, i, i, i+1)
		if _, err := c.Put(b.Context(), fmt.Sprint(scalePrefix, "fabric/host/far", i), v); err != nil {
			b.Fatal(err)
		}
	}
}

// writeEndpoints writes them down as their hosts do, with one transaction each.
func writeEndpoints(b *testing.B, c *clientv3.Client, network string, n int) {
	b.Helper()
	var g errgroup.Group
	g.SetLimit(32)
	for i := range n {
		g.Go(func() error {
			id, addr := fmt.Sprintf("%064d", i), netip.AddrFrom4([4]byte{10, 129, byte(i >> 8), byte(i)})
			v := fmt.Sprintf(`{"ID":%q,"Network":%q,"Host":"far%d","Container":"c%d","Addrs":["%s/12"],"MAC":[0,0,0,0,0,0],"Names":["c%d"]}`, id, network, i%100, i, addr, i)
			_, err := c.Txn(b.Context()).Then(clientv3.OpPut(scalePrefix+"fabric/endpoint/"+id, v), clientv3.OpPut(fmt.Sprintf("%saddr/%s/%s", scalePrefix, network, addr), id)).Commit()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConverge: 5 hosts start 200 containers each at the same time. "lag" is from
// when the last of them has its network until every host has every other's entry.
func BenchmarkConverge(b *testing.B) {
	const hosts, each = 5, 200
	for range b.N {
		all := followers(b, etcdtest.Start(b), hosts)
		roomy(b, all[0])
		begun := time.Now()
		var starting sync.WaitGroup
		for i, f := range all {
			starting.Go(func() {
				soon(b, "the network is known", func() bool { return f.knows("app") })
				for j := range each {
					f.open(f.m, fmt.Sprintf("c%d-%d", i, j), nil, "app")
				}
			})
		}
		starting.Wait()
		started := time.Since(begun)
		soon(b, "all know all", func() bool {
			for _, f := range all {
				if f.times.stations.Load() != (hosts-1)*each {
					return false
				}
			}
			return true
		})
		b.ReportMetric(float64(started.Milliseconds()), "ms-started")
		b.ReportMetric(float64((time.Since(begun) - started).Milliseconds()), "ms-lag")
	}
}
