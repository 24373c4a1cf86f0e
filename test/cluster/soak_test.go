package cluster

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"isle/internal/fabric"
)

// TestSoak is a random walk: for as long as SOAK says (a duration) things are done to five
// hosts, some of which fail, because others were done before; then all is healed, and
// everything has to be as etcd says. SOAK_SEED repeats one, as far as time lets it.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, err := time.ParseDuration(cmp.Or(os.Getenv("SOAK"), "15s"))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("SOAK_SEED"), fmt.Sprint(time.Now().UnixNano())), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SOAK_SEED=%d", seed)
	s := newSite(t)
	s.joinFive()
	s.populate()
	w := &walk{site: s, rand: rand.New(rand.NewPCG(seed, 0)), down: map[*host]bool{}, cuts: map[string]bool{}}
	t.Cleanup(w.tell)
	rounds := 0
	for end := time.Now().Add(length); time.Now().Before(end); {
		for range 2 + w.rand.IntN(8) {
			w.step()
		}
		w.heal()
		if w.rand.IntN(5) == 0 {
			w.rejoin()
		}
		rounds++
	}
	t.Logf("%d rounds", rounds)
}

// tell prints what was done since all was right, when it is not any more.
func (w *walk) tell() {
	if w.t.Failed() {
		w.t.Log("since all was right:\n" + strings.Join(w.log, "\n"))
	}
}

// talk: containers of different hosts that are on a network with each other reach each
// other at once.
func (w *walk) talk() {
	w.t.Helper()
	v, err := w.read(w.all[2])
	w.must(err)
	hosts := map[string]*host{}
	for _, h := range w.all {
		hosts[v.id(h.name)] = h
	}
	for id := range v.networks {
		var on []fabric.Endpoint
		for _, e := range v.endpoints {
			if e.Network == id {
				on = append(on, e)
			}
		}
		for range min(len(on), 4) {
			a, b := on[w.rand.IntN(len(on))], on[w.rand.IntN(len(on))]
			from, to := at(hosts[a.Host], a), at(hosts[b.Host], b)
			w.note("%s of %s (%s, pid %s) calls %s of %s (%s, pid %s)", from.name, from.host.name, a.ID[:12], from.pid, to.name, to.host.name, b.ID[:12], to.pid)
			w.must(connect(w.t, from, to, b.Addrs[0].Addr().String()).pass())
		}
	}
}

func at(h *host, e fabric.Endpoint) box {
	return box{h, e.Container, h.Isle(h.t, "inspect", "-f", "{{.State.Pid}}", e.Container)}
}
