package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"isle/internal/netspec"
	"isle/internal/network"
)

// What a result may have at most: it goes into a record.
const (
	maxIfaces  = 64
	maxAddrs   = 64
	maxRoutes  = 256
	maxServers = 16
	maxWords   = 64
	maxRaw     = 64 << 10
)

// reader makes a Result of what plugins have said of the interface ifname.
type reader struct {
	ifname string
	said   *types100.Result
	out    network.Result
}

// read reads a result of any version. What cannot be is an error: an address of an
// interface that is none, a name that would end up elsewhere than it seems. claimed says
// that there is such an interface.
func read(res types.Result, ifname string) (out network.Result, claimed bool, err error) {
	if res == nil {
		return out, false, errors.New("there is no result")
	}
	raw, err := json.Marshal(res)
	if err != nil {
		return out, false, err
	}
	said, err := types100.NewResultFromResult(res)
	if err != nil {
		return out, false, err
	}
	r := reader{ifname: ifname, said: said, out: network.Result{Raw: raw}}
	for _, step := range []func() error{r.sizes, r.interfaces, r.addrs, r.routes, r.dns} {
		if err := step(); err != nil {
			return out, false, err
		}
	}
	return r.out, r.claimed(), nil
}

func (r *reader) sizes() error {
	for what, n := range map[string][2]int{
		"interfaces": {len(r.said.Interfaces), maxIfaces}, "addresses": {len(r.said.IPs), maxAddrs}, "routes": {len(r.said.Routes), maxRoutes},
		"name servers": {len(r.said.DNS.Nameservers), maxServers}, "search domains": {len(r.said.DNS.Search), maxWords},
		"resolver options": {len(r.said.DNS.Options), maxWords}, "bytes": {len(r.out.Raw), maxRaw},
	} {
		if n[0] > n[1] {
			return fmt.Errorf("%d %s are too many: %d are the most", n[0], what, n[1])
		}
	}
	return nil
}

func (r *reader) interfaces() error {
	for i, l := range r.said.Interfaces {
		if l == nil {
			return fmt.Errorf("interface %d is null", i)
		}
		if l.Name != "lo" {
			if err := network.CheckInterface(l.Name); err != nil {
				return err
			}
		}
		switch {
		case l.Sandbox == "":
			r.out.Links = append(r.out.Links, l.Name)
		case l.Name == r.ifname:
			if err := r.own(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// own reads what is said of the endpoint's interface. Some kinds have no MAC address of
// six bytes.
func (r *reader) own(l *types100.Interface) error {
	if l.Mtu < 0 || l.Mtu > 1<<20 {
		return fmt.Errorf("interface %s: MTU %d cannot be", l.Name, l.Mtu)
	}
	r.out.MTU = l.Mtu
	if l.Mac == "" {
		return nil
	}
	mac, err := net.ParseMAC(l.Mac)
	if err != nil {
		return fmt.Errorf("interface %s: MAC address %q cannot be", l.Name, clean(l.Mac))
	}
	if len(mac) == len(netspec.MAC{}) {
		r.out.MAC = netspec.MAC(mac)
	}
	return nil
}

// claimed reports whether the result is about the endpoint's interface. Results before
// version 0.3 are about no other.
func (r *reader) claimed() bool {
	return len(r.said.Interfaces) == 0 && len(r.said.IPs) > 0 ||
		slices.ContainsFunc(r.said.Interfaces, func(l *types100.Interface) bool { return l.Sandbox != "" && l.Name == r.ifname })
}

func (r *reader) addrs() error {
	for i, ip := range r.said.IPs {
		if ip == nil {
			return fmt.Errorf("address %d is null", i)
		}
		p, err := prefixOf(ip.Address)
		if err != nil {
			return err
		}
		own, err := r.owns(ip)
		if err != nil {
			return err
		}
		if !own || slices.Contains(r.out.Addrs, p) {
			continue
		}
		r.out.Addrs = append(r.out.Addrs, p)
	}
	return nil
}

// owns reports whether an address is of the endpoint's interface.
func (r *reader) owns(ip *types100.IPConfig) (bool, error) {
	if ip.Interface == nil {
		return true, nil
	}
	i := *ip.Interface
	if i < 0 || i >= len(r.said.Interfaces) {
		return false, fmt.Errorf("address %s is of interface %d, and there are %d", ip.Address.String(), i, len(r.said.Interfaces))
	}
	l := r.said.Interfaces[i]
	return l.Sandbox != "" && l.Name == r.ifname, nil
}

// routes reads where packets go. Without a route for everything there is no way out.
func (r *reader) routes() error {
	for i, route := range r.said.Routes {
		if route == nil {
			return fmt.Errorf("route %d is null", i)
		}
		dst, ok := netPrefix(route.Dst)
		if !ok {
			return fmt.Errorf("route to %q cannot be", clean(route.Dst.String()))
		}
		via, err := r.via(route.GW, dst)
		if err != nil {
			return err
		}
		if dst.Bits() > 0 {
			r.out.Routes = append(r.out.Routes, network.ResultRoute{Dst: dst, Via: via})
		} else if via.IsValid() && !slices.ContainsFunc(r.out.Gateways, func(a netip.Addr) bool { return a.Is4() == via.Is4() }) {
			r.out.Gateways = append(r.out.Gateways, via)
		}
	}
	return nil
}

// via is the next hop of a route, by default the gateway of an address of its family.
func (r *reader) via(gw net.IP, dst netip.Prefix) (netip.Addr, error) {
	if len(gw) == 0 {
		for _, ip := range r.said.IPs {
			if a, ok := netip.AddrFromSlice(ip.Gateway); ok && a.Unmap().Is4() == dst.Addr().Is4() {
				gw = ip.Gateway
				break
			}
		}
	}
	if len(gw) == 0 {
		return netip.Addr{}, nil
	}
	a, ok := netip.AddrFromSlice(gw)
	if a = a.Unmap(); !ok || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return a, fmt.Errorf("gateway %q cannot be", clean(gw.String()))
	}
	return a, nil
}

// prefixOf is an address that a container can have.
func prefixOf(n net.IPNet) (netip.Prefix, error) {
	p, ok := netPrefix(n)
	if a := p.Addr(); !ok || p.Bits() == 0 || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return p, fmt.Errorf("address %q cannot be a container's", clean(n.String()))
	}
	return p, nil
}

func netPrefix(n net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, size := n.Mask.Size()
	if a = a.Unmap(); !ok || size == 0 || size < a.BitLen() {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, ones-(size-a.BitLen()))
	return p, p.IsValid()
}

// word is what can stand in resolv.conf.
var word = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,253}$`)

func (r *reader) dns() error {
	for _, s := range r.said.DNS.Nameservers {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("name server %q cannot be", clean(s))
		}
		r.out.DNS.Servers = append(r.out.DNS.Servers, a)
	}
	search := r.said.DNS.Search
	if d := r.said.DNS.Domain; d != "" && !slices.Contains(search, d) {
		search = append([]string{d}, search...)
	}
	for _, w := range slices.Concat(search, r.said.DNS.Options) {
		if !word.MatchString(w) {
			return fmt.Errorf("%q cannot be in resolv.conf", clean(w))
		}
	}
	r.out.DNS.Search, r.out.DNS.Options = search, r.said.DNS.Options
	return nil
}
