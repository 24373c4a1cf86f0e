package directory_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"isle/internal/cluster/directory"
	"isle/internal/fabric"
	"isle/internal/store"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
)

// These are the numbers of docs/design/0012-cluster.md. They are ratios of each other, in
// one run: what one key for each address costs besides the endpoint's own, how often
// hosts that connect at the same time want the same address, and how it grows.

// counting is a client that counts its transactions.
func counting(b *testing.B, srv *etcdtest.Server, n *atomic.Int64) *clientv3.Client {
	b.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{srv.URL}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if method == "/etcdserverpb.KV/Txn" {
				n.Add(1)
			}
			return next(ctx, method, req, reply, cc, opts...)
		}),
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func running(b *testing.B, c *clientv3.Client, id string) *directory.Directory {
	b.Helper()
	d := directory.New(directory.Config{Store: etcd.Store{Client: c, Prefix: prefix}, Self: fabric.Host{ID: id, Name: id, Addr: netip.MustParseAddr("192.0.2.1")}, Timeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	for !d.View().Known {
		time.Sleep(time.Millisecond)
	}
	return d
}

func network(b *testing.B, d *directory.Directory) {
	b.Helper()
	if _, err := d.CreateNetwork(b.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 1, Last: 9}}); err != nil {
		b.Fatal(err)
	}
}

func connect(d *directory.Directory, id string, pools ...string) error {
	e := fabric.Endpoint{ID: id, Network: "n", Container: id, Names: []string{id}}
	var from []netip.Prefix
	for _, s := range pools {
		p := netip.MustParsePrefix(s)
		from = append(from, p)
		e.Addrs = append(e.Addrs, netip.PrefixFrom(unspecified(p), p.Bits()))
	}
	_, err := d.Connect(context.Background(), e, from, nil)
	return err
}

// BenchmarkConnect is an endpoint with its addresses, and what a design with blocks of
// addresses for each host would write: the endpoint alone.
func BenchmarkConnect(b *testing.B) {
	for name, pools := range map[string][]string{"1-address": {"10.0.0.0/8"}, "2-addresses": {"10.0.0.0/8", "fd00::/64"}} {
		b.Run(name, func(b *testing.B) {
			d := running(b, etcdtest.Start(b).Client(b), "h")
			network(b, d)
			for i := 0; b.Loop(); i++ {
				if err := connect(d, fmt.Sprintf("e%d", i), pools...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("endpoint-alone", func(b *testing.B) {
		s := etcd.Store{Client: etcdtest.Start(b).Client(b), Prefix: prefix}
		for i := 0; b.Loop(); i++ {
			err := s.Update(b.Context(), func(tx store.Tx) error {
				etcd.Prefetch(tx, "fabric/network/n", fmt.Sprint("fabric/endpoint/e", i))
				tx.Put(fmt.Sprint("fabric/endpoint/e", i), make([]byte, 200))
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkContention is 16 hosts that fill half of a /22 at the same time, and all of it.
func BenchmarkContention(b *testing.B) {
	for name, n := range map[string]int{"half": 510, "full": 1020} {
		b.Run(name, func(b *testing.B) {
			var txns atomic.Int64
			for b.Loop() {
				c := counting(b, etcdtest.Start(b), &txns)
				var hosts []*directory.Directory
				for i := range 16 {
					hosts = append(hosts, running(b, c, fmt.Sprintf("h%d", i)))
				}
				network(b, hosts[0])
				txns.Store(0)
				var wg sync.WaitGroup
				for h, d := range hosts {
					wg.Go(func() {
						for i := h; i < n; i += 16 {
							if err := connect(d, fmt.Sprintf("e%d", i), "10.0.0.0/22"); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(float64(txns.Load())/2/float64(n), "tries/connect")
		})
	}
}

// BenchmarkScale is 100,000 endpoints of 1,000 hosts in one etcd: how long a host that
// comes takes to know them, what knowing them costs, and how long a new one takes to be
// known by 1,000 watches.
func BenchmarkScale(b *testing.B) {
	srv := etcdtest.Start(b)
	c := srv.Client(b)
	fill(b, c)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begun := time.Now()
		d := running(b, c, "new")
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms/read")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e5, "B/endpoint")
		d.View()
		b.ReportMetric(fanOut(b, srv, c), "ms/1000-watches")
	}
}

func fill(b *testing.B, c *clientv3.Client) {
	b.Helper()
	var wg sync.WaitGroup
	sem := make(chan struct{}, 16)
	for h := range 1000 {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			l, err := c.Grant(context.Background(), 3600)
			if err != nil {
				b.Error(err)
				return
			}
			s := etcd.Store{Client: c, Prefix: prefix, Lease: l.ID, Timeout: time.Minute}
			for part := range 2 {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					for i := range 50 {
						n := h*100 + part*50 + i
						id := fmt.Sprintf("e%064d", n)
						tx.Put("fabric/endpoint/"+id, fmt.Appendf(nil, `{"ID":%q,"Network":"n","Host":"h%d","Container":"c%d","Addrs":["10.%d.%d.%d/8"],"MAC":[2,0,0,0,0,1],"Names":["c%d"]}`, id, h, n, n>>16, n>>8&255, n&255, n))
						tx.Put(fmt.Sprintf("addr/n/10.%d.%d.%d", n>>16, n>>8&255, n&255), []byte(id))
					}
					return nil
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// fanOut is the time, in ms, until 1,000 watches on 50 connections have an endpoint.
func fanOut(b *testing.B, srv *etcdtest.Server, c *clientv3.Client) float64 {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var ready, got sync.WaitGroup
	for range 50 {
		cc := srv.Client(b)
		for range 20 {
			ready.Add(1)
			got.Add(1)
			w := cc.Watch(ctx, prefix+"fabric/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
			go func() {
				<-w
				ready.Done()
				<-w
				got.Done()
			}()
		}
	}
	ready.Wait()
	begun := time.Now()
	if _, err := c.Put(ctx, prefix+"fabric/endpoint/x", "{}"); err != nil {
		b.Fatal(err)
	}
	got.Wait()
	return float64(time.Since(begun).Microseconds()) / 1e3
}
