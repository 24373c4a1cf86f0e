package kernel

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// BenchmarkAttach is a veth with its peer made in place, an address, a route
// and one published port. The namespace is made before and reaped after.
func BenchmarkAttach(b *testing.B) {
	for _, v := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"dual", true}} {
		b.Run(v.name, func(b *testing.B) { benchAttach(b, v.v6) })
	}
}

func benchAttach(b *testing.B, v6 bool) {
	m := newMachine(b)
	m.apply(bridge(1, netspec.Segment{Masquerade: true}))
	n := 0
	var spent []time.Duration
	for b.Loop() {
		b.StopTimer()
		n++
		all, ns := container(1, 1)
		want := netspec.State{}
		for _, o := range all {
			switch o := o.(type) {
			case netspec.Addr:
				if o.Prefix.Addr().Is4() || v6 {
					want.Add(o)
				}
			case netspec.Route:
				if o.Dst.Addr().Is4() || v6 {
					want.Add(o)
				}
			case netspec.Link:
				o.Name = fmt.Sprintf("isv%d", n)
				want.Add(o)
			}
		}
		want.Add(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: uint16(n), Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isbr1"})
		m.apply(state(netspec.Namespace{NS: ns}))
		changes := reconcile.Diff(nil, want)
		b.StartTimer()
		start := time.Now()
		done, err := m.Apply(context.Background(), changes)
		spent = append(spent, time.Since(start))
		b.StopTimer()
		if err != nil {
			b.Fatal(changes[done], err)
		}
		m.remove(state(netspec.Namespace{NS: ns}))
		m.settle(fmt.Sprintf("isv%d", n))
		b.StartTimer()
	}
	slices.Sort(spent)
	b.ReportMetric(float64(spent[0].Microseconds()), "µs-min")
	b.ReportMetric(float64(spent[len(spent)/2].Microseconds()), "µs-median")
}
