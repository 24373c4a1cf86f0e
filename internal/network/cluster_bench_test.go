package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/fabric"
	"isle/internal/reconcile"
)

// idle is a kernel that takes everything and keeps nothing.
type idle struct{ reconcile.Kernel }

func (idle) Apply(_ context.Context, changes []reconcile.Change) (int, error) {
	return len(changes), nil
}

// BenchmarkHeard: news of one endpoint, beside so many others on the network.
func BenchmarkHeard(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchHeard(b, n) })
	}
}

func benchHeard(b *testing.B, n int) {
	_, all := gather(b, 2)
	h := all[0]
	net := create(b, h.m, api.CreateRequest{Name: "app", Driver: "overlay", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.64.0.0/12")}}}})
	hear(b, all)
	open(b, h.m, "c1", "app")
	hear(b, all)
	h.m.Kernel = idle{h.kernel}
	one := func(i int) *fabric.Endpoint {
		a := netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})
		return &fabric.Endpoint{ID: fmt.Sprint("e", i), Network: net.ID, Host: "b", Container: "x", Names: []string{fmt.Sprint("x", i)}, Addrs: []netip.Prefix{netip.PrefixFrom(a, 12)}, Generation: int64(i)}
	}
	many := map[string]*fabric.Endpoint{}
	for i := 1; i <= n; i++ {
		many[fmt.Sprint("e", i)] = one(i)
	}
	h.m.Heard(context.Background(), fabric.Change{Endpoints: many})
	for b.Loop() {
		h.m.Heard(context.Background(), fabric.Change{Endpoints: map[string]*fabric.Endpoint{"new": one(n + 1)}})
		h.m.Heard(context.Background(), fabric.Change{Endpoints: map[string]*fabric.Endpoint{"new": nil}})
	}
}
