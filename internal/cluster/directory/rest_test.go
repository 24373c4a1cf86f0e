package directory_test

import (
	"fmt"
	"net/netip"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/directory"
	"isle/internal/fabric"
)

// TestRest: addresses of a host that is not heard of are given to others when there are no
// others left, and not before: when it is back it has them again.
func TestRest(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var lease int64
	a, b := l.host(func(c *directory.Config) { c.Remember = func(id int64) error { lease = id; return nil } }), l.host()
	_, err := a.network("one", "10.1.0.0/28")
	a.must(err)
	const own, all = 5, 13 // of a /28, less the network, the broadcast and the reserved address
	rests := map[netip.Addr]bool{}
	for i := range own {
		e, err := a.connect(fmt.Sprint("a", i), "one", "10.1.0.0/28")
		a.must(err)
		rests[e.Addrs[0].Addr()] = true
	}
	b.eventually("all of them", func(v fabric.View) bool { return len(v.Endpoints) == own })
	_, err = l.client.Revoke(t.Context(), clientv3.LeaseID(lease))
	a.must(err)
	b.eventually("that all of them are gone", func(v fabric.View) bool { return len(v.Endpoints) == 0 })
	for i := range all {
		e, err := b.connect(fmt.Sprint("b", i), "one", "10.1.0.0/28")
		b.must(err)
		if last := i >= all-own; rests[e.Addrs[0].Addr()] != last {
			t.Errorf("%d of %d: %s; rests: %v", i+1, all, e.Addrs[0], !last)
		}
	}
}
