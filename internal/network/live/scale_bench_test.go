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
	unfollow  func() // has the directory hear nothing more
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

// follow makes a host of the cluster that is in srv. Its id is h<i>.
func follow(b *testing.B, srv *etcdtest.Server, wire kerneltest.NS, i int) *follower {
	b.Helper()
	f, id := &follower{member: newMember(b, wire, i)}, fmt.Sprint("h", i)
	f.directory = directory.New(directory.Config{
		Store: etcd.Store{Client: srv.Client(b), Prefix: scalePrefix}, TTL: time.Minute, Timeout: time.Minute,
		Self: fabric.Host{ID: id, Name: id, Addr: netip.AddrFrom4([4]byte{10, 8, 0, byte(i)})},
	})
	f.times, f.heard = &timedKernel{Kernel: f.kernel}, &timedDirectory{Directory: f.directory}
	f.m = f.manager()
	f.m.Kernel, f.m.Fabric, f.m.Ports, f.m.Seal = f.times, f.heard, &publish.Table{}, f.keys
	if err := f.m.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(running(f.m.Run))
	f.follow()
	b.Cleanup(func() { f.unfollow() })
	return f
}

// running runs fn until the end.
func running(fn func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = fn(ctx) }()
	return func() { cancel(); <-done }
}

func (f *follower) follow() { f.unfollow = running(f.directory.Run) }

// hosts are n of them, on one wire, with their etcd.
func hosts(b *testing.B, n int) (srv *etcdtest.Server, all []*follower) {
	b.Helper()
	run(b, "ip", "link", "set", "lo", "up") // where etcd is
	wire := kerneltest.NewNS(b)
	wire.IP("link add lan type bridge\nlink set lan up")
	srv = etcdtest.Start(b)
	for i := range n {
		all = append(all, follow(b, srv, wire, i+1))
	}
	return srv, all
}

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

// BenchmarkWatched: 10,000 endpoints of 100 other hosts, one transaction each as hosts
// write them, and a host that has a container on their network. "wake": they are known,
// and its container comes. "behind": they were written while it heard nothing; from then
// until its kernel has all. "live": from the first that is written.
func BenchmarkWatched(b *testing.B) {
	for range b.N {
		srv, all := hosts(b, 1)
		f, c := all[0], srv.Client(b)
		n := roomy(b, f)
		writeHosts(b, c, 100)
		f.await(b, writeEndpoints(b, c, n.ID, watched))
		f.timed(b, "wake", func() int { f.open(f.m, "own", nil, "app"); return watched })
		f.timed(b, "gone", func() int { return removeEndpoints(b, c) })
		f.unfollow()
		writeEndpoints(b, c, n.ID, watched)
		f.timed(b, "behind", func() int { f.follow(); return watched })
		if got := len(f.behind()); got != watched {
			b.Fatalf("the kernel has %d stations, want %d", got, watched)
		}
		f.timed(b, "gone", func() int { return removeEndpoints(b, c) })
		f.timed(b, "live", func() int { return writeEndpoints(b, c, n.ID, watched) })
	}
}

// await waits until the directory has so many endpoints.
func (f *follower) await(b *testing.B, n int) {
	b.Helper()
	soon(b, "the endpoints are known", func() bool { return len(f.directory.View().Endpoints) == n })
}

// timed is how long it takes from what fn does until the kernel has so many stations.
func (f *follower) timed(b *testing.B, what string, fn func() int) {
	b.Helper()
	f.heard.spent.Store(0)
	f.times.spent.Store(0)
	f.times.calls.Store(0)
	before, used, begun := resources(), worked(b), time.Now()
	want := int64(fn())
	soon(b, "the kernel has them", func() bool { return f.times.stations.Load() == want })
	for part, d := range map[string]time.Duration{
		"ms": time.Since(begun), "cpu-ms": worked(b) - used, "heard-ms": time.Duration(f.heard.spent.Load()), "kernel-ms": time.Duration(f.times.spent.Load()),
	} {
		b.ReportMetric(float64(d.Milliseconds()), what+"-"+part)
	}
	b.ReportMetric(float64(f.times.calls.Load()), what+"-kernel-calls")
	if what == "wake" {
		after := resources()
		b.ReportMetric(float64(after.heap-before.heap)/watched, "isled-B/endpoint")
		b.ReportMetric(float64(after.slab-before.slab)/watched, "slab-B/endpoint")
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
func writeEndpoints(b *testing.B, c *clientv3.Client, network string, n int) int {
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
	return n
}

// removeEndpoints takes all away at once, as the end of leases does.
func removeEndpoints(b *testing.B, c *clientv3.Client) (left int) {
	b.Helper()
	for _, p := range []string{"fabric/endpoint/", "addr/"} {
		if _, err := c.Delete(b.Context(), scalePrefix+p, clientv3.WithPrefix()); err != nil {
			b.Fatal(err)
		}
	}
	return 0
}

// BenchmarkConverge: 5 hosts start 200 containers each at the same time. "lag" is from
// when the last of them has its network until every host has every other's entry.
func BenchmarkConverge(b *testing.B) {
	const many, each = 5, 200
	for range b.N {
		_, all := hosts(b, many)
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
				if f.times.stations.Load() != (many-1)*each {
					return false
				}
			}
			return true
		})
		b.ReportMetric(float64(started.Milliseconds()), "ms-started")
		b.ReportMetric(float64((time.Since(begun) - started).Milliseconds()), "ms-lag")
	}
}
