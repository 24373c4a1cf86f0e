package dns_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	isledns "isle/internal/network/dns"
)

// BenchmarkQueries is a client's view: whole questions and answers through
// sockets of the loopback, from so many workers at once. One is one question.
func BenchmarkQueries(b *testing.B) {
	for _, hosts := range []int{10, 20_000} {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("hosts=%d/workers=%d", hosts, workers), func(b *testing.B) {
				s := &isledns.Server{Log: slog.New(slog.DiscardHandler)}
				defer s.Close()
				fill(s, hosts)
				u, l := listen(b)
				s.Attach("c", u, l, isledns.Client{Zones: []string{"n"}})
				measure(b, u.LocalAddr().String(), workers, spread(hosts))
			})
		}
	}
}

// BenchmarkBare is the scale for the others: a loop that sends back what it
// reads, with the flags of an answer.
func BenchmarkBare(b *testing.B) {
	u, l := listen(b)
	l.Close()
	defer u.Close()
	go func() {
		c, buf := u.(*net.UDPConn), make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append(buf[:n], "an address..."...), from)
		}
	}()
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprint("workers=", workers), func(b *testing.B) { measure(b, u.LocalAddr().String(), workers, spread(1)) })
	}
}

// BenchmarkCached is the same for a name outside that is in the cache.
func BenchmarkCached(b *testing.B) {
	up := newUpstream(b, says("192.0.2.1", dns.RcodeSuccess))
	s := &isledns.Server{Log: slog.New(slog.DiscardHandler)}
	defer s.Close()
	u, l := listen(b)
	s.Attach("c", u, l, isledns.Client{Forward: true, Upstreams: []netip.AddrPort{up.at}})
	measure(b, u.LocalAddr().String(), 8, func(int) func() []byte { return always("example.com.") })
}

// BenchmarkDeadServer asks for another name each time, and the first server of
// two is silent. Compare with a first server that is well.
func BenchmarkDeadServer(b *testing.B) {
	for what, dead := range map[string]bool{"first=well": false, "first=silent": true} {
		b.Run(what, func(b *testing.B) {
			second := newUpstream(b, says("192.0.2.1", dns.RcodeSuccess)).at
			ups := []netip.AddrPort{newUpstream(b, says("192.0.2.1", dns.RcodeSuccess)).at, second}
			if dead {
				ups[0] = deadServer(b, false)
			}
			s := &isledns.Server{Log: slog.New(slog.DiscardHandler)}
			defer s.Close()
			u, l := listen(b)
			s.Attach("c", u, l, isledns.Client{Forward: true, Upstreams: ups})
			measure(b, u.LocalAddr().String(), 8, func(worker int) func() []byte {
				i := 0
				return func() []byte {
					i++
					return always(fmt.Sprintf("h%d-%d.example.com.", worker, i))()
				}
			})
		})
	}
}

// spread makes workers ask for names of fill's, each for its own.
func spread(hosts int) func(int) func() []byte {
	return func(worker int) func() []byte { return always(fmt.Sprintf("c%d.", (worker*7919)%hosts)) }
}

func always(name string) func() []byte {
	q, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	return func() []byte { return q }
}

func fill(s *isledns.Server, n int) {
	s.SetZone("n", isledns.Zone{Name: "app"})
	var hosts []isledns.Host
	for i := range n {
		hosts = append(hosts, isledns.Host{
			Zone: "n", Owner: fmt.Sprint("e", i), Names: []string{fmt.Sprint("c", i), fmt.Sprintf("%012x", i)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
		})
	}
	s.Change(nil, hosts)
}

// measure lets workers ask and wait, each for what question gives it.
func measure(b *testing.B, at string, workers int, question func(worker int) func() []byte) {
	var wg sync.WaitGroup
	took := make([][]time.Duration, workers)
	b.ResetTimer()
	for w := range workers {
		wg.Go(func() { took[w] = asker(b, at, b.N/workers+1, question(w)) })
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "qps")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

func asker(b *testing.B, at string, n int, question func() []byte) []time.Duration {
	c, err := net.Dial("udp", at)
	if err != nil {
		b.Error(err)
		return nil
	}
	defer c.Close()
	took, buf := make([]time.Duration, n), make([]byte, 1500)
	for i := range took {
		q := question()
		start := time.Now()
		if _, err := c.Write(q); err != nil {
			b.Error(err)
			return nil
		}
		if m, err := c.Read(buf); err != nil || m <= len(q) {
			b.Errorf("answer of %d bytes: %v", m, err)
			return nil
		}
		took[i] = time.Since(start)
	}
	return took
}
