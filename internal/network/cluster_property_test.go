package network_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/fabric"
	"isle/internal/fabric/fabrictest"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// lives is one random life of a cluster.
type lives struct {
	c                                             *fabrictest.Cluster
	all                                           []*member
	r                                             *rand.Rand
	done, refused, failures, crashes, cuts, moved int
	direct                                        int // ways past a tunnel
}

// TestClusterConverges: whatever hosts do, wherever a kernel refuses or a process dies,
// and whoever cannot reach the store or lost its lease: when all can talk again, every
// kernel is what the records and the cluster say, and the cluster has what the hosts have.
func TestClusterConverges(t *testing.T) {
	var sum lives
	for seed := range uint64(200) {
		l := liveTogether(t, seed, 30)
		sum.done, sum.refused, sum.failures = sum.done+l.done, sum.refused+l.refused, sum.failures+l.failures
		sum.crashes, sum.cuts, sum.moved, sum.direct = sum.crashes+l.crashes, sum.cuts+l.cuts, sum.moved+l.moved, sum.direct+l.direct
	}
	t.Logf("%d done, %d refused, %d failed in a kernel, %d crashes, %d partitions, %d other addresses, %d ways past a tunnel", sum.done, sum.refused, sum.failures, sum.crashes, sum.cuts, sum.moved, sum.direct)
	if min(sum.done, sum.refused, sum.failures, sum.crashes, sum.cuts, sum.direct) < 50 || sum.moved < 5 {
		t.Error("the lives do not go everywhere")
	}
}

func FuzzClusterConverges(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { liveTogether(t, seed, 30) })
}

func liveTogether(t *testing.T, seed uint64, steps int) *lives {
	l := &lives{r: rand.New(rand.NewPCG(seed, 2))}
	l.c, l.all = gather(t, 3)
	for i, h := range l.all {
		h.room = (int(seed) + i) % 3
		h.begin(t)
		for range 4 {
			_, err := l.rewire(t, h)
			must(t, err)
		}
	}
	for i := range steps {
		h := l.all[l.r.IntN(len(l.all))]
		what := l.step(t, h)
		if l.r.IntN(2) == 0 {
			hear(t, l.all)
		}
		if l.r.IntN(4) == 0 {
			l.settle(t, fmt.Sprintf("seed %d step %d: %s on host %s", seed, i, what, h.id))
		}
		if t.Failed() {
			t.Fatalf("seed %d step %d: %s on host %s", seed, i, what, h.id)
		}
	}
	l.settle(t, fmt.Sprintf("seed %d", seed))
	for _, h := range l.all {
		h.feed.Close()
	}
	return l
}

// step is one act of a host, in which its kernel may refuse something or its process die.
func (l *lives) step(t *testing.T, h *member) (what string) {
	k := h.kernel
	switch k.N = 0; l.r.IntN(4) {
	case 0:
		k.CrashAt = 1 + l.r.IntN(12)
	case 1:
		k.FailAt = 1 + l.r.IntN(12)
	}
	defer func() {
		k.CrashAt, k.FailAt = 0, 0
		if r := recover(); r != nil {
			if r != kerneltest.ErrCrash {
				panic(r)
			}
			l.crashes++
			h.begin(t)
		}
	}()
	what, err := l.act(t, h)
	switch {
	case errors.Is(err, kerneltest.ErrRefused):
		l.failures++
	case err != nil:
		if l.refused++; class(err) == nil {
			t.Errorf("%s: error without a class: %v", what, err)
		}
	default:
		l.done++
	}
	return what
}

func (l *lives) act(t *testing.T, h *member) (what string, err error) {
	net, c := fmt.Sprint("n", l.r.IntN(3)), fmt.Sprint(h.id, l.r.IntN(3))
	switch l.r.IntN(13) {
	case 0:
		v6, direct := l.r.IntN(2) == 0, fmt.Sprint(l.r.IntN(2) == 0)
		_, err = h.m.Create(t.Context(), api.CreateRequest{Name: net, Driver: "overlay", EnableIPv6: &v6, Options: map[string]string{"isle.direct": direct}})
		return "create " + net, err
	case 1:
		_, err = h.m.Remove(t.Context(), net)
		return "remove " + net, err
	case 2, 3, 4:
		req := request(c, nil, net)
		if l.r.IntN(3) == 0 {
			req = request(c, ports("80/tcp", fmt.Sprint(":", 8000+l.r.IntN(9))), net, "bridge")
		}
		_, err = h.m.Open(t.Context(), req)
		return "open " + c, err
	case 5, 6:
		return "close " + c, h.m.Close(t.Context(), c)
	case 7:
		_, err = h.m.Connect(t.Context(), c, network.ConnectRequest{Network: net, ContainerName: c, ContainerID: c})
		return "connect " + c, err
	case 8:
		n, err := h.m.Find(t.Context(), net)
		if err == nil {
			err = h.m.Disconnect(t.Context(), c, n.ID)
		}
		return "disconnect " + c, err
	case 9:
		l.cuts++
		h.dir.Cut(false)
		if l.r.IntN(2) == 0 {
			l.outlive(t, h, net)
		}
		return "cut", nil
	case 10:
		h.dir.Heal()
		return "heal", nil
	case 11:
		return l.rewire(t, h)
	}
	if l.r.IntN(2) == 0 {
		h.dir.Cut(true)
	}
	h.begin(t)
	return "restart", nil
}

// rewire has another host be next to this one, or not any more, or found out to be
// reached, or not.
func (l *lives) rewire(t *testing.T, h *member) (what string, err error) {
	o := l.all[l.r.IntN(len(l.all))]
	if l.r.IntN(2) == 0 {
		found := slices.Contains(*h.found, o.id)
		h.tell(t, o.id, !found)
		return fmt.Sprintf("reach %s %t", o.id, !found), nil
	}
	a := o.dir.View().Hosts[o.id].Addr
	if h.machine.near == nil {
		h.machine.near = map[netip.Addr]bool{}
	}
	h.machine.near[a] = !h.machine.near[a]
	return fmt.Sprintf("near %s %t", o.id, h.machine.near[a]), h.m.Repair(t.Context(), reconcile.Alarm{Scope: reconcile.Scope{Facts: true}})
}

// outlive ends the lease of a host that is cut off; another one takes what it can.
func (l *lives) outlive(t *testing.T, h *member, net string) {
	l.c.Expire(h.id)
	hear(t, l.all)
	for _, o := range l.all {
		if o != h {
			_, _ = o.m.Open(t.Context(), request(fmt.Sprint(o.id, l.r.IntN(3)), nil, net)) // as far as it can
		}
	}
}

// settle has all talk again, and checks.
func (l *lives) settle(t *testing.T, when string) {
	t.Helper()
	for _, h := range l.all {
		h.dir.Heal()
	}
	before := l.addrs(t)
	hear(t, l.all)
	for id, a := range l.addrs(t) {
		if was, ok := before[id]; ok && !slices.Equal(was, a) {
			l.moved++
		}
	}
	l.closeLost(t)
	have := map[string]fabric.Endpoint{}
	for _, h := range l.all {
		must(t, h.m.Sync(t.Context()))
		h.right(t)
		eps, err := h.m.Endpoints(t.Context())
		must(t, err)
		for _, e := range eps {
			if n, err := h.m.Find(t.Context(), e.Network); err == nil && n.Global() && len(e.Addrs) > 0 {
				have[e.ID] = fabric.Endpoint{ID: e.ID, Host: h.id, Addrs: e.Addrs}
			}
		}
	}
	l.agrees(t, have)
	if t.Failed() {
		t.Fatal(when)
	}
}

// closeLost closes what is on networks that were removed: nobody knew that a container was
// there, because its process died before it had an address, or its host was cut off.
func (l *lives) closeLost(t *testing.T) {
	known := l.all[0].dir.View().Networks
	for _, h := range l.all {
		eps, err := h.m.Endpoints(t.Context())
		must(t, err)
		for _, e := range eps {
			n, err := h.m.Find(t.Context(), e.Network)
			must(t, err)
			if _, ok := known[n.ID]; n.Global() && !ok {
				must(t, h.m.Close(t.Context(), e.Sandbox))
			}
		}
	}
	hear(t, l.all)
}

func (l *lives) addrs(t *testing.T) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for _, h := range l.all {
		eps, err := h.m.Endpoints(t.Context())
		must(t, err)
		for _, e := range eps {
			out[e.ID] = e.Addrs
		}
	}
	return out
}

// agrees : the cluster has what the hosts have, no address is twice there, and every host
// has a way to each container of the others on the networks that it is on.
func (l *lives) agrees(t *testing.T, have map[string]fabric.Endpoint) {
	t.Helper()
	v := l.all[0].dir.View()
	for id, e := range v.Endpoints {
		if mine, ok := have[id]; !ok || mine.Host != e.Host || !slices.Equal(mine.Addrs, e.Addrs) {
			t.Errorf("the cluster has %v, its host %v", e, mine)
		}
	}
	for id := range have {
		if _, ok := v.Endpoints[id]; !ok {
			t.Errorf("the cluster lacks %v", have[id])
		}
	}
	taken := map[string]string{}
	for id, e := range v.Endpoints {
		for _, a := range e.Addrs {
			key := e.Network + a.Addr().String()
			if other, twice := taken[key]; twice {
				t.Errorf("%s and %s have %s", id, other, a)
			}
			taken[key] = id
		}
	}
	for _, h := range l.all {
		if got, want := len(of[netspec.FDB](h)), h.others(t, v); got != want {
			t.Errorf("host %s knows %d containers of others, want %d", h.id, got, want)
		}
		if got, want := len(only[netspec.FDB](h, true)), len(v.Hosts)-1; got != want {
			t.Errorf("host %s tries the ways to %d others, want %d", h.id, got, want)
		}
		l.direct += len(of[netspec.Shortcut](h))
	}
}

// others counts the containers of other hosts on networks that one of this host is on,
// perhaps without an address: the process died before it got one.
func (h *member) others(t *testing.T, v fabric.View) (n int) {
	on := map[string]bool{}
	eps, err := h.m.Endpoints(t.Context())
	must(t, err)
	for _, e := range eps {
		on[e.Network] = true
	}
	for _, e := range v.Endpoints {
		if on[e.Network] && e.Host != h.id {
			n++
		}
	}
	return n
}
