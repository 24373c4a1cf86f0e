package kernel

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// Facts are what planning needs to know of the host.
type Facts struct {
	MTU    int            // of the link that the default route leads over; 1500 when there is none
	Addrs  []netip.Prefix // of the host's links, ours left out
	Routes []netip.Prefix // destinations of the main table, default routes and ours left out
	IPv6   bool           // the kernel has IPv6
	// Advertised are the uplinks that take router advertisements.
	Advertised []string
}

const defaultMTU = 1500

// Facts reads them.
func (k *Kernel) Facts(ctx context.Context) (Facts, error) {
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	v, err := k.view("")
	if err != nil {
		return Facts{}, err
	}
	f := Facts{MTU: defaultMTU, IPv6: k.features.IPv6}
	ours := func(i int32) bool { return k.ours(v.Links[i]) }
	for _, a := range v.Addrs {
		if !ours(a.Index) {
			f.Addrs = append(f.Addrs, a.Prefix)
		}
	}
	best := -1
	for _, r := range v.Routes {
		switch {
		case ours(r.Index):
		case r.Dst.Bits() > 0:
			f.Routes = append(f.Routes, r.Dst)
		case r.Type == unix.RTN_UNICAST && v.Links[r.Index].MTU > 0 && (best < 0 || r.Metric < best):
			best, f.MTU = r.Metric, int(v.Links[r.Index].MTU)
		}
	}
	f.Advertised, err = k.advertised(v)
	return f, err
}

func (k *Kernel) view(ns netspec.NS) (rtnl.View, error) {
	f, err := k.open(ns)
	if err != nil {
		return rtnl.View{}, err
	}
	defer f.Close()
	c, err := rtnl.Open(f)
	if err != nil {
		return rtnl.View{}, err
	}
	defer c.Close()
	return c.Read()
}

// hostAddrs are all addresses of the host, ours too.
func (k *Kernel) hostAddrs() ([]netip.Prefix, error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	as, err := c.Addrs()
	out := make([]netip.Prefix, len(as))
	for i, a := range as {
		out[i] = a.Prefix
	}
	return out, err
}

// Counters are what a link has counted, as its own namespace sees it.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Counters reads the links of a namespace, by name, without lo.
func (k *Kernel) Counters(ctx context.Context, ns netspec.NS) (map[string]Counters, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := k.open(ns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := rtnl.Open(f)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links(true)
	if err != nil {
		return nil, fmt.Errorf("read counters of namespace %s: %w", ns, err)
	}
	out := map[string]Counters{}
	for _, l := range links {
		if !l.Loopback {
			out[l.Name] = Counters{
				l.RxBytes, l.RxPackets, l.RxErrors, l.RxDropped, l.TxBytes, l.TxPackets, l.TxErrors, l.TxDropped,
			}
		}
	}
	return out, nil
}
