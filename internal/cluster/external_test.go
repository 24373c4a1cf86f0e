package cluster

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/api"
	"isle/internal/fabric"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
)

// TestExternal: an etcd that others run keeps the memory, below its prefix; no host
// starts one, and a host that knows of none does not come in.
func TestExternal(t *testing.T) {
	l := newLab(t)
	srv := etcdtest.Start(t)
	external := func() *host {
		h := l.host()
		h.External = &External{Dial: etcd.Dial{Endpoints: []string{srv.URL}}, Prefix: "/their/isle"}
		return h
	}
	a, b, c := external(), external(), l.host()
	a.init()
	l.eventually("it knows itself", func() bool { return len(a.session.Load().known.Load().hosts) == 1 })
	if err := c.join(a); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "cluster.etcd") {
		t.Errorf("a host without the etcd: %v", err)
	}
	if _, err := b.Init(t.Context(), api.ClusterInitRequest{Name: "b"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("init where a cluster is: %v", err)
	}
	l.must(b.join(a))
	l.eventually("both are alive", func() bool { return a.alive(2)() && b.alive(2)() })
	if a.session.Load().member != nil || b.session.Load().member != nil {
		t.Error("a host has started an etcd")
	}
	n, err := a.Directory().CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 7, Last: 9}})
	l.must(err)
	l.eventually("the network is seen", func() bool { return b.Directory().View().Networks["n"].VNI == n.VNI })
	st, err := b.Status(t.Context())
	if err != nil || !st.External || !st.Quorum || len(st.Members) != 1 || st.Problem != "" {
		t.Errorf("%+v, %v", st, err)
	}
	resp, err := srv.Client(t).Get(t.Context(), "/their/isle/fabric/network/n")
	if err != nil || len(resp.Kvs) != 1 {
		t.Errorf("it is not below the prefix: %+v, %v", resp, err)
	}
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("one is left", b.alive(1))
	l.must(a.join(b)) // b lets others in too
	l.must(b.Leave(t.Context(), api.ClusterLeaveRequest{}))
	l.eventually("one is left", func() bool { hosts, err := a.Hosts(t.Context()); return err == nil && len(hosts) == 1 })
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{}))
	b.init() // nothing of the first one is left
}
