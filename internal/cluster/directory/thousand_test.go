package directory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"isle/internal/cluster/directory"
	"isle/internal/fabric"
	"isle/internal/store/etcd"
)

// This is docs/design/0014-cluster-scale.md: 1,000 hosts with 100 endpoints each at one
// member, which is a process of its own, with TLS, as isled has it, but without fsync: the disk is not what is measured. Each host is a
// connection, a lease that it renews, and a watch of everything; it does not keep what it hears.

const (
	manyHosts   = 1000
	manyEach    = 100
	sampled     = 20 // hosts whose latencies are kept
	renewEvery  = 10 * time.Second / 3
	churnFor    = 4 * time.Second
	readAtOnce  = 40
	hostsThatGo = 100
)

// crowd is the hosts.
type crowd struct {
	*testing.B
	process process
	hosts   []*peer
	ctx     context.Context
	written sync.Map // key → when its change was asked for
}

type peer struct {
	client *clientv3.Client
	lease  clientv3.LeaseID
	heard  atomic.Int64 // events
	keep   bool         // latencies
	took   []time.Duration
	mu     sync.Mutex
}

// BenchmarkThousand is all of it, one after another.
func BenchmarkThousand(b *testing.B) {
	for range b.N {
		c := gatherCrowd(b)
		c.fill()
		c.watch()
		c.steady()
		for _, rate := range []int{10, 50, 200} {
			c.churn(rate)
		}
		c.massDeath()
		c.powerCut()
	}
}

func gatherCrowd(b *testing.B) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{B: b, process: startProcess(b), ctx: ctx}
	b.Cleanup(cancel)
	for i := range manyHosts {
		c.hosts = append(c.hosts, &peer{client: c.process.client(b), keep: i < sampled})
	}
	return c
}

// each does fn for all hosts, some at a time.
func (c *crowd) each(hosts []*peer, atOnce int, fn func(i int, p *peer) error) {
	c.Helper()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, p := range hosts {
		g.Go(func() error { return fn(i, p) })
	}
	if err := g.Wait(); err != nil {
		c.Fatal(err)
	}
}

// tell also says what was measured when something fails later.
func (c *crowd) tell(v float64, what string) {
	c.Logf("%g %s", v, what)
	c.ReportMetric(v, what)
}

func (c *crowd) fill() {
	begun, used := time.Now(), c.process.cpu()
	c.each(c.hosts, 16, func(h int, p *peer) error {
		l, err := p.client.Grant(c.ctx, 600)
		if err != nil {
			return err
		}
		p.lease = l.ID
		if _, err = p.client.Put(c.ctx, fmt.Sprint(prefix, "fabric/host/h", h), fmt.Sprintf(`{"ID":"h%d","Name":"h%d","Addr":"10.200.%d.%d"}`, h, h, h>>8, h&255), clientv3.WithLease(l.ID)); err != nil {
			return err
		}
		for from := 0; from < manyEach && err == nil; from += 50 {
			var ops []clientv3.Op
			for i := range 50 {
				ops = append(ops, p.endpoint(h*manyEach+from+i, h)...)
			}
			_, err = p.client.Txn(c.ctx).Then(ops...).Commit()
		}
		return err
	})
	now, _ := c.process.memory()
	c.tell(time.Since(begun).Seconds(), "fill-s")
	c.tell((c.process.cpu() - used).Seconds(), "fill-etcd-cpu-s")
	c.tell(now, "filled-etcd-MB")
	c.tell(c.process.database(c.B, c.hosts[0].client), "filled-db-MB")
}

// endpoint is what a host writes for the nth container.
func (p *peer) endpoint(n, host int) []clientv3.Op {
	id, addr := fmt.Sprintf("%064d", n), fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)
	v := fmt.Sprintf(`{"ID":%q,"Network":"n%d","Host":"h%d","Container":"c%d","Addrs":["%s/8"],"MAC":[0,0,0,0,0,0],"Names":["c%d"]}`, id, n%1000, host, n, addr, n)
	return []clientv3.Op{
		clientv3.OpPut(prefix+"fabric/endpoint/"+id, v, clientv3.WithLease(p.lease)), clientv3.OpPut(prefix+"addr/n/"+addr, id, clientv3.WithLease(p.lease)),
	}
}

// watch has all hosts follow, and renew their leases.
func (c *crowd) watch() {
	c.each(c.hosts, 32, func(_ int, p *peer) error {
		w := p.client.Watch(clientv3.WithRequireLeader(c.ctx), prefix+"fabric/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-w
		go c.follow(p, w)
		go c.renew(p)
		return nil
	})
}

func (c *crowd) follow(p *peer, w clientv3.WatchChan) {
	for resp := range w {
		for _, e := range resp.Events {
			p.note(c, string(e.Kv.Key))
		}
	}
}

func (p *peer) note(c *crowd, key string) {
	if p.keep {
		if at, ok := c.written.Load(key); ok {
			p.mu.Lock()
			p.took = append(p.took, time.Since(at.(time.Time)))
			p.mu.Unlock()
		}
	}
	p.heard.Add(1)
}

func (c *crowd) renew(p *peer) {
	pause := rand.N(renewEvery)
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = renewEvery
		_, _ = p.client.KeepAliveOnce(c.ctx, p.lease)
	}
}

// steady is what it costs when nothing happens.
func (c *crowd) steady() {
	used, begun := c.process.cpu(), time.Now()
	time.Sleep(10 * time.Second)
	now, _ := c.process.memory()
	c.tell(100*float64(c.process.cpu()-used)/float64(time.Since(begun)), "steady-etcd-cpu-%")
	c.tell(now, "steady-etcd-MB")
}

// churn has endpoints come and go at a rate.
func (c *crowd) churn(rate int) {
	c.Helper()
	before, used := c.heard(), c.process.cpu()
	for _, p := range c.hosts {
		p.took = nil
	}
	c.written.Clear()
	n := rate * int(churnFor/time.Second)
	ticks := time.NewTicker(time.Second / time.Duration(rate))
	defer ticks.Stop()
	begun := time.Now()
	var g errgroup.Group
	g.SetLimit(64)
	var done atomic.Int64
	for i := range n {
		<-ticks.C
		g.Go(func() error {
			if c.change(i) == nil {
				done.Add(1)
			}
			return nil
		})
	}
	_ = g.Wait()
	took, asked := time.Since(begun), time.Now()
	c.await(before + done.Load()*manyHosts)
	name := fmt.Sprintf("churn%d-", rate)
	c.tell(float64(done.Load())/took.Seconds(), name+"changes/s")
	c.tell(float64(int64(n)-done.Load()), name+"refused")
	c.tell(float64(time.Since(asked).Milliseconds()), name+"lag-ms")
	c.tell((c.process.cpu()-used).Seconds()*1e3/float64(n), name+"etcd-cpu-ms/change")
	c.latencies(name)
}

// change writes an endpoint of a new container, or takes the one before away.
func (c *crowd) change(i int) error {
	p := c.hosts[rand.N(manyHosts)]
	ops := p.endpoint(200000+i, 1)
	c.written.Store(string(ops[0].KeyBytes()), time.Now())
	_, err := p.client.Txn(c.ctx).Then(ops...).Commit()
	return err
}

func (c *crowd) heard() (n int64) {
	for _, p := range c.hosts {
		n += p.heard.Load()
	}
	return n
}

func (c *crowd) await(n int64) {
	c.Helper()
	for end := time.Now().Add(2 * time.Minute); c.heard() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("%d events were heard, want %d", c.heard(), n)
		}
	}
}

func (c *crowd) latencies(name string) {
	var all []time.Duration
	for _, p := range c.hosts[:sampled] {
		all = append(all, p.took...)
	}
	slices.Sort(all)
	c.tell(float64(all[len(all)/2].Microseconds())/1e3, name+"p50-ms")
	c.tell(float64(all[len(all)*99/100].Microseconds())/1e3, name+"p99-ms")
}

// massDeath: the leases of 100 hosts end, and with them 10,000 endpoints.
func (c *crowd) massDeath() {
	before, used, begun := c.heard(), c.process.cpu(), time.Now()
	gone := int64(0)
	for i := range hostsThatGo {
		resp, err := c.hosts[i+sampled].client.TimeToLive(c.ctx, c.hosts[i+sampled].lease, clientv3.WithAttachedKeys())
		if err != nil {
			c.Fatal(err)
		}
		for _, k := range resp.Keys {
			if strings.HasPrefix(string(k), prefix+"fabric/") {
				gone++
			}
		}
	}
	c.each(c.hosts[sampled:sampled+hostsThatGo], 32, func(_ int, p *peer) error {
		_, err := p.client.Revoke(c.ctx, p.lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) { // it was asked for twice
			err = nil
		}
		return err
	})
	c.await(before + gone*manyHosts)
	c.tell(float64(gone), "death-records")
	c.tell(time.Since(begun).Seconds(), "death-s")
	c.tell((c.process.cpu() - used).Seconds(), "death-etcd-cpu-s")
}

// powerCut: hosts come at once and read everything, while the others renew their leases.
func (c *crowd) powerCut() {
	used, begun := c.process.cpu(), time.Now()
	ctx, cancel := context.WithCancel(c.ctx)
	renewals := make(chan []time.Duration)
	go func() { renewals <- c.renewals(ctx) }()
	c.each(c.hosts[:readAtOnce], readAtOnce, func(i int, p *peer) error {
		got := 0
		s := etcd.Store{Client: p.client, Prefix: prefix}
		reading, stop := context.WithCancel(c.ctx)
		defer stop()
		_ = s.Watch(reading, "fabric/", 0, func(b etcd.Batch) error { got = len(b.Events); stop(); return nil })
		if got < manyHosts*manyEach*8/10 {
			return fmt.Errorf("%d records were read", got)
		}
		return nil
	})
	cancel()
	took := <-renewals
	_, most := c.process.memory()
	c.tell(time.Since(begun).Seconds()/readAtOnce, "read-s/host")
	c.tell((c.process.cpu()-used).Seconds()/readAtOnce, "read-etcd-cpu-s/host")
	c.tell(float64(took[len(took)-1].Milliseconds()), "read-renewal-max-ms")
	c.tell(most, "read-etcd-most-MB")
	c.tell(c.process.database(c.B, c.hosts[0].client), "read-db-MB")
}

// renewals are how long a host waits for its lease, sorted.
func (c *crowd) renewals(ctx context.Context) (all []time.Duration) {
	p := c.hosts[manyHosts-1]
	for ctx.Err() == nil {
		begun := time.Now()
		if _, err := p.client.KeepAliveOnce(c.ctx, p.lease); err == nil {
			all = append(all, time.Since(begun))
		}
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(all)
	return all
}

// BenchmarkFollow is what a change costs a host that has nothing of its network: it is
// read and kept, beside 100,000 others.
func BenchmarkFollow(b *testing.B) {
	d := directory.New(directory.Config{Self: fabric.Host{ID: "h"}})
	record := func(i int) (key, value string) {
		id := fmt.Sprintf("%064d", i)
		return "fabric/endpoint/" + id, fmt.Sprintf(`{"ID":%q,"Network":"n%d","Host":"h1","Container":"c%d","Addrs":["10.%d.%d.%d/8"],"MAC":[0,0,0,0,0,0],"Names":["c%d"]}`, id, i%1000, i, i>>16, i>>8&255, i&255, i)
	}
	for i := range 100000 {
		k, v := record(i)
		d.Feed(int64(i), k, v)
	}
	for i := 0; b.Loop(); i++ {
		k, v := record(i % 100000)
		d.Feed(int64(100000+i), k, v)
	}
}
