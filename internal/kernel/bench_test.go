package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// BenchmarkAttach is a veth with its peer made in place, an address, a route and one
// published port, on a bridge with so many ports. The namespace is made before and
// reaped after. In turn with it runs the least that anybody has to ask of this kernel
// for the same, see floor.
func BenchmarkAttach(b *testing.B) {
	for _, v := range []struct {
		ports int
		v6    bool
	}{{0, false}, {0, true}, {1000, false}} {
		b.Run(fmt.Sprintf("ports=%d/ipv6=%t", v.ports, v.v6), func(b *testing.B) { benchAttach(b, v.ports, v.v6) })
	}
}

func benchAttach(b *testing.B, ports int, v6 bool) {
	m := newMachine(b)
	m.apply(bridge(1, netspec.Segment{Masquerade: true}))
	m.crowd(ports)
	var ours, least []time.Duration
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		want := attached(n, v6)
		changes := reconcile.Diff(nil, want)
		least = append(least, m.alone(n, func() error { return m.floor(want) }))
		b.StartTimer()
		ours = append(ours, m.alone(n, func() error { _, err := m.Apply(context.Background(), changes); return err }))
	}
	slices.Sort(ours)
	slices.Sort(least)
	at, floor := ours[len(ours)/2], least[len(least)/2]
	b.ReportMetric(float64(at.Microseconds()), "µs-median")
	b.ReportMetric(float64(floor.Microseconds()), "µs-floor")
	b.ReportMetric(float64(ours[0].Microseconds()), "µs-min")
	b.ReportMetric(float64(least[0].Microseconds()), "µs-floor-min")
	b.ReportMetric(at.Seconds()/floor.Seconds(), "floors")
}

// attached is container 1 on bridge 1 without its namespace, with a link of its own
// name and a published port.
func attached(n int, v6 bool) netspec.State {
	all, _ := container(1, 1)
	want := state(netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: uint16(n + 1), Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isbr1"})
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
			o.Name = link(n)
			want.Add(o)
		}
	}
	return want
}

func link(n int) string { return fmt.Sprintf("isv%d", n) }

// alone is how long fn takes, with the namespace of container 1 made before and its
// link gone after.
func (m *machine) alone(n int, fn func() error) time.Duration {
	m.t.Helper()
	_, ns := container(1, 1)
	m.apply(state(netspec.Namespace{NS: ns}))
	start := time.Now()
	err := fn()
	took := time.Since(start)
	if err != nil {
		m.t.Fatal(err)
	}
	m.remove(state(netspec.Namespace{NS: ns}))
	m.settle(link(n))
	return took
}

// floor makes what want says with as few messages as the kernel allows: one that makes
// the link, its peer in place, up and a port; one sendmsg in the namespace; one
// element of nftables.
func (m *machine) floor(want netspec.State) error {
	var l netspec.Link
	var port netspec.Publish
	for _, o := range want {
		switch o := o.(type) {
		case netspec.Link:
			l = o
		case netspec.Publish:
			port = o
		}
	}
	f, err := m.Kernel.open(l.PeerNS)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := m.rt.Do(m.upAtOnce(l, f)); err != nil {
		return err
	}
	c, err := rtnl.Open(f)
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := c.Index(l.Peer)
	if err != nil {
		return err
	}
	msgs := []nlmsg.Message{rtnl.UpIn(index, 0)}
	for _, o := range want {
		if o, ok := o.(netspec.Addr); ok {
			msgs = append(msgs, rtnl.AddAddr(index, o.Prefix))
		}
	}
	for _, o := range want {
		if o, ok := o.(netspec.Route); ok {
			msgs = append(msgs, rtnl.AddRoute(index, o))
		}
	}
	errs, err := c.Execute(msgs...)
	if err = errors.Join(append(errs, err)...); err != nil {
		return err
	}
	_, err = m.table.Apply(context.Background(), []reconcile.Change{{Key: port.Key(), New: port}})
	return err
}

// upAtOnce is rtnl.NewLink, up and a port of its bridge.
func (m *machine) upAtOnce(l netspec.Link, peer *os.File) nlmsg.Message {
	master, err := m.rt.Index(l.Master)
	if err != nil {
		m.t.Fatal(err)
	}
	msg := rtnl.NewLink(l, m.mark, int(peer.Fd()))
	binary.NativeEndian.PutUint32(msg.Data[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(msg.Data[12:], unix.IFF_UP)
	msg.Data = nlmsg.Header(msg.Data...).U32(unix.IFLA_MASTER, uint32(master)).Data()
	return msg
}

// crowd fills bridge 1 with ports that lead into one namespace.
func (m *machine) crowd(n int) {
	m.t.Helper()
	s := state(netspec.Namespace{NS: "crowd"})
	for i := range n {
		s.Add(netspec.Link{Name: fmt.Sprintf("isc%d", i), Kind: netspec.Veth, MTU: 1500, Master: "isbr1", Hairpin: true, PeerNS: "crowd", Peer: fmt.Sprintf("eth%d", i)})
	}
	m.apply(s)
}
