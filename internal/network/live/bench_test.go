package live_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/store"
	"isle/internal/store/bolt"
)

// BenchmarkAttach is a container's network with a published port, made and taken
// away, among N others on the same network. "ratio" is how much longer the median
// takes than the first, the slope; "cpu-ratio" the same for the time that processors
// worked on it, which says more on a machine that others use too.
func BenchmarkAttach(b *testing.B) {
	var first, firstCPU time.Duration
	for _, n := range []int{0, 100, 500, 1000, 1500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b, true)
			h.store = onDisk(b)
			m := h.start()
			defer stop(m)
			if _, err := m.Create(b.Context(), api.CreateRequest{
				Name: "app", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/16")}}},
			}); err != nil {
				b.Fatal(err)
			}
			ports := api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified()}}}
			h.fill(m, "app", n)
			var all []time.Duration
			var cpu time.Duration
			for b.Loop() {
				at, used := time.Now(), worked(b)
				h.open(m, "x", ports, "app")
				all, cpu = append(all, time.Since(at)), cpu+worked(b)-used
				b.StopTimer()
				if err := m.Close(b.Context(), "x"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			slices.Sort(all)
			spent, cpu := all[len(all)/2], cpu/time.Duration(len(all))
			if n == 0 {
				first, firstCPU = spent, cpu
			}
			b.ReportMetric(float64(spent.Microseconds()), "µs-median")
			b.ReportMetric(float64(cpu.Microseconds()), "µs-cpu")
			b.ReportMetric(ratio(spent, first), "ratio")
			b.ReportMetric(ratio(cpu, firstCPU), "cpu-ratio")
		})
	}
}

// BenchmarkAttachLAN is a container's network on the LAN of the host, without DHCP, made
// and taken away: an interface, its addresses of both families, the way out, the records.
func BenchmarkAttachLAN(b *testing.B) {
	for _, driver := range []string{"macvlan", "ipvlan"} {
		b.Run(driver, func(b *testing.B) {
			l := newLAN(b)
			l.store = onDisk(b)
			m := l.start()
			defer stop(m)
			l.try(m, onLAN(driver))
			var cpu time.Duration
			for b.Loop() {
				used := worked(b)
				l.open(m, "x", nil, "lan")
				cpu += worked(b) - used
				b.StopTimer()
				if err := m.Close(b.Context(), "x"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "µs-cpu")
		})
	}
}

// onDisk is the store of isled: the one in memory copies everything at every change.
func onDisk(b *testing.B) store.Store {
	s, err := bolt.Open(filepath.Join(b.TempDir(), "isle.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// worked is the processor time that this process has used.
func worked(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
