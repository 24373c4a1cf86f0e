package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/api"
	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
	"isle/internal/fabric"
	"isle/internal/store/storetest"
)

// nets numbers the tests: each has a network of loopback addresses of its own.
var nets atomic.Int32

// lab is some hosts on loopback.
type lab struct {
	*testing.T
	net byte
	n   byte
}

func newLab(t *testing.T) *lab {
	t.Parallel()
	return &lab{T: t, net: byte(nets.Add(1))}
}

type host struct {
	*Cluster
	lab    *lab
	cancel context.CancelFunc
}

// host is one that is in no cluster yet.
func (l *lab) host() *host {
	l.n++
	h := &host{lab: l}
	dir, err := os.MkdirTemp(l.TempDir(), "host")
	if err != nil {
		l.Fatal(err)
	}
	h.Cluster = New(Config{
		Dir: dir + "/cluster", Records: &storetest.Mem{}, Lease: 3 * time.Second, Fast: true, Log: slog.New(slog.DiscardHandler),
		Advertise: netip.AddrFrom4([4]byte{127, byte(20 + os.Getpid()%200), l.net, l.n}),
		Ports:     door.Ports{Door: 12377, Client: 12379, Peer: 12380},
	})
	h.start()
	l.Cleanup(func() { h.stop() })
	return h
}

func (h *host) start() {
	h.lab.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	if err := h.Start(ctx); err != nil {
		h.lab.Fatal(err)
	}
}

func (h *host) stop() {
	h.cancel()
	h.Close()
	h.session.Store(nil) // as in a new process
}

func (h *host) name() string { return fmt.Sprintf("h%d", h.Advertise.As4()[3]) }

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (h *host) init() *host {
	h.lab.Helper()
	_, err := h.Init(context.Background(), api.ClusterInitRequest{Name: h.name()})
	h.lab.must(err)
	return h
}

func (h *host) token() api.ClusterToken {
	h.lab.Helper()
	t, err := h.Token(context.Background(), api.ClusterTokenRequest{})
	h.lab.must(err)
	return t
}

func (h *host) join(at *host) error {
	t := at.token()
	_, err := h.Join(context.Background(), api.ClusterJoinRequest{Token: t.Token, Hosts: t.Hosts, Name: h.name()})
	return err
}

func (l *lab) eventually(what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(25 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not within 25 s: %s", what)
		}
	}
}

func (h *host) alive(n int) func() bool {
	return func() bool { return len(h.Directory().View().Hosts) == n }
}

// TestAlone: a host in no cluster has no directory and no files, and says how to get into
// one; with init it is in one, also after a restart, and after leave in none again.
func TestAlone(t *testing.T) {
	l := newLab(t)
	a := l.host()
	_, err := a.Status(t.Context())
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "isle cluster init") {
		t.Errorf("status: %v", err)
	}
	if a.Directory() != nil {
		t.Error("a host alone has a directory")
	}
	if _, err := os.Stat(a.Dir); !os.IsNotExist(err) {
		t.Errorf("a host alone has files: %v", err)
	}
	a.init()
	if _, err := a.Init(t.Context(), api.ClusterInitRequest{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("init again: %v", err)
	}
	l.eventually("it is alive", a.alive(1))
	a.stop()
	a.start()
	l.eventually("it is alive after a restart", a.alive(1))
	st, err := a.Status(t.Context())
	if err != nil || !st.Quorum || st.Leader != a.name() || st.Problem != "" || st.Lag > 10 || len(st.Members) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	testFilesGone(t, a)
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{Force: true}))
	if _, err := os.Stat(a.Dir); !os.IsNotExist(err) || a.Directory() != nil {
		t.Errorf("after leave: %v", err)
	}
	a.stop()
	a.start()
	if a.Directory() != nil {
		t.Error("it is in the cluster again")
	}
}

// testFilesGone: a member whose files are gone does not begin another cluster.
func testFilesGone(t *testing.T, a *host) {
	a.stop()
	a.lab.must(os.RemoveAll(a.Dir + "/etcd"))
	a.start()
	time.Sleep(time.Second)
	if st, err := a.Status(t.Context()); err != nil || st.Quorum || st.Problem == "" {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestBroken: damaged files do not keep isled from starting; the networks are not told
// that all of the cluster's are gone, and the way out works.
func TestBroken(t *testing.T) {
	l := newLab(t)
	a := l.host().init()
	a.stop()
	l.must(os.Remove(a.Dir + "/" + pki.CAFile))
	a.start()
	if v := a.Fabric().View(); v.Known {
		t.Errorf("%+v", v)
	}
	_, serr := a.Status(t.Context())
	_, ierr := a.Init(t.Context(), api.ClusterInitRequest{})
	_, cerr := a.Fabric().CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, nil)
	for _, err := range []error{serr, ierr, cerr, a.Leave(t.Context(), api.ClusterLeaveRequest{})} {
		if err == nil || !strings.Contains(err.Error(), "leave --force") {
			t.Error(err)
		}
	}
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{Force: true}))
	if !a.Fabric().View().Known {
		t.Error("after leaving it is not known that there is nothing")
	}
	a.init()
}

// TestThree: three hosts become members and a fourth does not; one leaves, one is
// removed, and the others go on.
func TestThree(t *testing.T) {
	l := newLab(t)
	a, b, c, d := l.host(), l.host(), l.host(), l.host()
	a.init()
	for _, h := range []*host{b, c, d} {
		l.must(h.join(a))
	}
	for _, h := range []*host{a, b, c, d} {
		l.eventually("all are alive", h.alive(4))
	}
	if s := d.session.Load(); s.member != nil || s.self.Member {
		t.Error("the fourth host is a member")
	}
	if _, err := os.Stat(d.Dir + "/" + unlockFile); !os.IsNotExist(err) {
		t.Errorf("the fourth host has the key to the authority: %v", err)
	}
	st, err := d.Status(t.Context())
	if err != nil || len(st.Members) != 3 || !st.Quorum || st.Leader == "" || st.Hosts != 4 {
		t.Errorf("%+v, %v", st, err)
	}
	n, err := d.Directory().CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 7, Last: 9}})
	l.must(err)
	l.eventually("the network is seen", func() bool { return a.Directory().View().Networks["n"].VNI == n.VNI })
	testRenew(t, d)
	testRemove(t, a, d)
	l.must(c.Leave(t.Context(), api.ClusterLeaveRequest{}))
	for _, h := range []*host{a, b} {
		l.eventually("two are left", func() bool { hosts, err := h.Hosts(t.Context()); return err == nil && len(hosts) == 2 && h.alive(2)() })
	}
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{})) // it was the first one
	l.eventually("the last one goes on", func() bool {
		st, err := b.Status(t.Context())
		return err == nil && st.Quorum && st.Leader == b.name()
	})
	l.must(b.Directory().RemoveNetwork(t.Context(), "n"))
}

func testRenew(t *testing.T, h *host) {
	s := h.session.Load()
	before := s.identity.Cert().Leaf
	if err := s.renew(t.Context()); err != nil {
		t.Error(err)
	}
	if after := s.identity.Cert().Leaf; pki.Serial(after) == pki.Serial(before) {
		t.Error("the certificate is not another one")
	}
}

// testRemove: a removed host is refused everywhere, and knows it.
func testRemove(t *testing.T, a, gone *host) {
	l := a.lab
	if err := a.Remove(t.Context(), a.name()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("rm of this host: %v", err)
	}
	if err := a.Remove(t.Context(), "nobody"); !errdefs.IsNotFound(err) {
		t.Errorf("rm of nobody: %v", err)
	}
	l.must(a.Remove(t.Context(), gone.name()))
	l.eventually("it is not alive", a.alive(3))
	l.eventually("its changes are refused", func() bool {
		return errdefs.IsPermissionDenied(gone.Directory().RemoveNetwork(t.Context(), "n"))
	})
	l.eventually("it says so", func() bool {
		st, err := gone.Status(t.Context())
		return err == nil && strings.Contains(st.Problem, "was removed")
	})
	gone.stop()
	gone.start()
	l.eventually("it says so after a restart", func() bool {
		st, err := gone.Status(t.Context())
		return err == nil && strings.Contains(st.Problem, "was removed")
	})
	s := gone.session.Load()
	if err := s.renew(t.Context()); err == nil {
		t.Error("its certificate is renewed")
	}
	l.must(gone.Leave(t.Context(), api.ClusterLeaveRequest{Force: true}))
}

// TestRefused: who may not come in leaves nothing behind, on either side.
func TestRefused(t *testing.T) {
	l := newLab(t)
	a, b, other := l.host(), l.host(), l.host()
	a.init()
	other.init()
	l.eventually("it knows itself", func() bool { return len(a.session.Load().known.Load().hosts) == 1 })
	join := func(token, name string) error {
		_, err := b.Join(t.Context(), api.ClusterJoinRequest{Token: token, Hosts: []string{a.Advertise.String()}, Name: name})
		return err
	}
	good := a.token().Token
	ca := a.session.Load().identity.CA()
	for what, c := range map[string]struct {
		err  error
		is   func(error) bool
		says string
	}{
		"a wrong token":              {join(pki.NewToken(pki.Hash(ca)).String(), "b"), errdefs.IsPermissionDenied, "expired"},
		"no token":                   {join("x", "b"), errdefs.IsInvalidArgument, "token"},
		"a token of another cluster": {join(other.token().Token, "b"), errdefs.IsPermissionDenied, "another cluster"},
		"a name that is taken":       {join(good, a.name()), errdefs.IsAlreadyExists, a.name()},
		"a bad name":                 {join(good, "a/b"), errdefs.IsInvalidArgument, "--name"},
	} {
		if !c.is(c.err) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
	_, err := b.Join(t.Context(), api.ClusterJoinRequest{Token: good, Hosts: []string{"127.0.0.1:1"}, Name: "b"})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("nobody there: %v", err)
	}
	_, err = b.Join(t.Context(), api.ClusterJoinRequest{Token: good, Hosts: []string{a.Advertise.String()}, Name: "b", Advertise: "192.0.2.9"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("an address that it has not: %v", err)
	}
	inside := netip.PrefixFrom(b.Advertise, 28).Masked()
	_, err = a.Directory().CreateNetwork(t.Context(), fabric.Network{ID: "in", Name: "in", Record: []byte(`{"Pools":[{"Subnet":"` + inside.String() + `"}]}`)}, []fabric.Range{{First: 7, Last: 9}})
	l.must(err)
	if err := join(good, "b"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "network in of the cluster") {
		t.Errorf("an address in a subnet of the cluster: %v", err)
	}
	l.must(a.Directory().RemoveNetwork(t.Context(), "in"))
	hosts, err := a.Hosts(t.Context())
	if _, serr := os.Stat(b.Dir); err != nil || len(hosts) != 1 || b.Directory() != nil || !os.IsNotExist(serr) {
		t.Errorf("something is left: %+v, %v, %v", hosts, err, serr)
	}
	if _, err := a.Token(t.Context(), api.ClusterTokenRequest{Rotate: true}); err != nil {
		t.Error(err)
	}
	if err := join(good, "b"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a token from before the rotation: %v", err)
	}
}

// TestMoveInFails: a host that was let in and cannot start is forgotten, and the members
// go on.
func TestMoveInFails(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	a.init()
	squatter, err := netListen(b.Advertise, b.Ports.Peer)
	l.must(err)
	if err := b.join(a); err == nil {
		t.Fatal("it joined without a port")
	}
	squatter.Close()
	if _, err := os.Stat(b.Dir); !os.IsNotExist(err) {
		t.Errorf("files are left: %v", err)
	}
	l.must(b.join(a)) // its name is free again
	l.eventually("both are alive", b.alive(2))
}

// TestNoQuorum: one of two members is away: what is known stays, changes are refused in
// bounded time, and status says what is wrong; then everything works again.
func TestNoQuorum(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	a.init()
	l.must(b.join(a))
	l.eventually("both are alive", a.alive(2))
	_, err := a.Directory().CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 7, Last: 9}})
	l.must(err)
	l.eventually("the network is seen", func() bool { return len(a.Directory().View().Networks) == 1 })
	b.stop()
	begun := time.Now()
	if err := a.Directory().RemoveNetwork(t.Context(), "n"); !errdefs.IsUnavailable(err) || time.Since(begun) > 20*time.Second {
		t.Errorf("a change: %v after %s", err, time.Since(begun))
	}
	if v := a.Directory().View(); !v.Known || len(v.Networks) != 1 {
		t.Errorf("%+v", v)
	}
	st, err := a.Status(t.Context())
	if err != nil || st.Quorum || !strings.Contains(st.Problem, "no quorum") || !slices.ContainsFunc(st.Members, func(m api.ClusterMember) bool { return !m.Reachable && m.Error != "" }) {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := a.Token(t.Context(), api.ClusterTokenRequest{}); !errdefs.IsUnavailable(err) {
		t.Errorf("token: %v", err)
	}
	if err := a.Leave(t.Context(), api.ClusterLeaveRequest{}); err == nil || a.Directory() == nil {
		t.Errorf("it left without a word: %v", err)
	}
	b.start()
	l.eventually("changes are possible again", func() bool { return a.Directory().RemoveNetwork(t.Context(), "n") == nil })
	l.eventually("both are alive", func() bool { return a.alive(2)() && b.alive(2)() })
}

// TestNonsense: records of hosts that cannot be read do no harm.
func TestNonsense(t *testing.T) {
	l := newLab(t)
	a := l.host().init()
	l.eventually("it is alive", a.alive(1))
	s := a.session.Load()
	for k, v := range map[string]string{"member/x": "{", "member/y": `{"ID":"z"}`, "removed/x": "[]", "fabric/host/x": "x"} {
		_, err := s.client.Put(t.Context(), s.store.Prefix+k, v)
		l.must(err)
	}
	l.eventually("it is reported", func() bool { st, err := a.Status(t.Context()); return err == nil && len(st.Ignored) == 1 })
	b := l.host()
	l.must(b.join(a))
	l.eventually("both are known", func() bool { hosts, err := b.Hosts(t.Context()); return err == nil && len(hosts) == 2 })
	out, err := json.Marshal(s.known.Load().hosts)
	l.must(err)
	if strings.Contains(string(out), `"z"`) {
		t.Errorf("%s", out)
	}
}

// TestFabric: who watches sees this host join and leave, and can write only between.
func TestFabric(t *testing.T) {
	l := newLab(t)
	a := l.host()
	f := a.Fabric()
	if v := f.View(); !v.Known || v.Self != "" || len(v.Hosts) != 0 {
		t.Errorf("alone: %+v", v)
	}
	resets := make(chan bool, 100) // whether this host was among the hosts
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- f.Watch(ctx, func(fabric.Change) { _, here := f.View().Hosts[f.View().Self]; resets <- here })
	}()
	await := func(want bool) {
		t.Helper()
		for {
			select {
			case here := <-resets:
				if here == want {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("nothing was told; want %v", want)
			}
		}
	}
	await(false)
	write := func() error {
		_, err := f.CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 7, Last: 9}})
		return err
	}
	if err := write(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "isle cluster init") {
		t.Errorf("alone: %v", err)
	}
	a.init()
	await(true)
	l.must(write())
	l.must(f.RemoveNetwork(t.Context(), "n"))
	l.must(a.Leave(t.Context(), api.ClusterLeaveRequest{}))
	await(false)
	if lost, err := f.Restore(t.Context(), nil); err != nil || lost != nil || f.RemoveNetwork(t.Context(), "n") != nil || f.Disconnect(t.Context(), "x") != nil {
		t.Errorf("alone again: %v, %v", lost, err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}

// TestMet: who is told that this host is in a cluster can make a network of it at once.
func TestMet(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	var met []string
	for _, h := range []*host{a, b} {
		h.Met = func(_ context.Context, id string) { met = append(met, id) }
	}
	a.init()
	b.join(a)
	if want := []string{a.Directory().View().Self, b.Directory().View().Self}; !slices.Equal(met, want) {
		t.Errorf("the networks were waited for as %q, not %q", met, want)
	}
}
