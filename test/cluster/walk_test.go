package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// walk does things to a site, of which some have to fail because of others.
type walk struct {
	*site
	rand    *rand.Rand
	down    map[*host]bool // their isled does not run
	cuts    map[string]bool
	busy    sync.WaitGroup // commands, which go on while other things happen
	mu      sync.Mutex
	log     []string
	counter int
}

// steps are what can happen; those that are there twice happen more often.
func (w *walk) steps() []func() {
	return []func(){
		w.kill, w.stop, w.start, w.start, w.cutHost, w.cutBetween, w.mend, w.mend, w.move,
		w.run, w.run, w.run, w.run, w.runAt, w.runAt, w.remove, w.remove, w.remove, w.restart, w.leaveNetwork, w.joinNetwork,
		w.network, w.noNetwork, w.pause, w.pause, w.pause,
	}
}

func (w *walk) step() {
	all := w.steps()
	all[w.rand.IntN(len(all))]()
}

func (w *walk) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// any is a host whose isled runs, or does not.
func (w *walk) any(down bool) *host {
	var some []*host
	for _, h := range w.all {
		if w.down[h] == down {
			some = append(some, h)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.rand.IntN(len(some))]
}

func (w *walk) kill() {
	if h := w.any(false); h != nil {
		w.note("kill %s", h.name)
		w.down[h] = true
		h.Kill()
	}
}

func (w *walk) stop() {
	if h := w.any(false); h != nil {
		w.note("stop %s", h.name)
		w.down[h] = true
		h.Stop()
	}
}

func (w *walk) start() {
	if h := w.any(true); h != nil {
		w.note("start %s", h.name)
		delete(w.down, h)
		w.must(h.Start())
	}
}

func (w *walk) cutHost() {
	h := w.all[w.rand.IntN(len(w.all))]
	w.note("cut %s", h.name)
	w.cuts[h.name] = true
	w.cut(h.name)
}

func (w *walk) cutBetween() {
	w.note("cut between")
	w.cuts[w.between()] = true
	w.cut(w.between())
}

// mend takes one cut back.
func (w *walk) mend() {
	ports := slices.Sorted(maps.Keys(w.cuts))
	if len(ports) == 0 {
		return
	}
	port := ports[w.rand.IntN(len(ports))]
	w.note("mend %s", port)
	delete(w.cuts, port)
	w.site.heal(port)
}

// move takes the segments away from each other, or together.
func (w *walk) move() {
	if w.cuts[w.between()] {
		return
	}
	if w.far != nil {
		w.note("near")
		w.near()
		return
	}
	d := distance{delay: time.Duration(w.rand.IntN(100)) * time.Millisecond, loss: 0.05 * w.rand.Float64(), late: 0.01}
	w.note("apart %+v", d)
	w.apart(d)
}

func (w *walk) pause() { time.Sleep(time.Duration(w.rand.IntN(3000)) * time.Millisecond) }

// try runs a command while other things happen. Nobody waits for it but heal.
func (w *walk) try(h *host, args ...string) {
	w.busy.Go(func() {
		begin := time.Now()
		out, err := h.Try(args...)
		w.note("%s: isle %s: %v after %.1f s: %s", h.name, strings.Join(args, " "), err, time.Since(begin).Seconds(), strings.TrimSpace(out))
	})
}

func (w *walk) run() {
	h := w.any(false)
	if h == nil {
		return
	}
	w.counter++
	args := []string{"run", "-d", "--name", fmt.Sprintf("r%d", w.counter)}
	besides := w.rand.IntN(3) // 2: none
	for i, n := range []string{"app", "wide"} {
		if i != besides {
			args = append(args, "--network", n)
		}
	}
	w.try(h, append(args, "isle/toolbox", "sleep", "100000")...)
}

// runAt takes one of a few addresses, which another one may have.
func (w *walk) runAt() {
	h := w.any(false)
	if h == nil {
		return
	}
	w.counter++
	w.try(h, "run", "-d", "--name", fmt.Sprintf("r%d", w.counter), "--network", "app", "--ip", fmt.Sprintf("10.70.0.%d", 200+w.rand.IntN(4)), "isle/toolbox", "sleep", "100000")
}

// one is a container of a host.
func (w *walk) one(h *host) string {
	out, err := h.Try("ps", "-a", "--format", "{{.Names}}")
	names := strings.Fields(out)
	if err != nil || len(names) == 0 {
		return ""
	}
	return names[w.rand.IntN(len(names))]
}

func (w *walk) with(do func(h *host, name string)) {
	if h := w.any(false); h != nil {
		if name := w.one(h); name != "" {
			do(h, name)
		}
	}
}

func (w *walk) remove() {
	w.with(func(h *host, name string) { w.try(h, "rm", "-f", name) })
}

func (w *walk) restart() {
	w.with(func(h *host, name string) { w.try(h, "restart", "-t", "0", name) })
}

func (w *walk) leaveNetwork() {
	w.with(func(h *host, name string) { w.try(h, "network", "disconnect", "app", name) })
}

func (w *walk) joinNetwork() {
	w.with(func(h *host, name string) { w.try(h, "network", "connect", "wide", name) })
}

func (w *walk) network() {
	if h := w.any(false); h != nil {
		w.try(h, "network", "create", "-d", "overlay", fmt.Sprint("n", w.rand.IntN(3)))
	}
}

func (w *walk) noNetwork() {
	if h := w.any(false); h != nil {
		w.try(h, "network", "rm", fmt.Sprint("n", w.rand.IntN(3)))
	}
}

// rejoin has a host leave, a member perhaps, and come back.
func (w *walk) rejoin() {
	w.t.Helper()
	i := w.rand.IntN(len(w.all))
	h, other := w.all[i], w.all[(i+1)%len(w.all)]
	w.note("%s leaves and joins again by %s", h.name, other.name)
	h.clearOut()
	h.Isle(w.t, "cluster", "leave")
	h.eventually("it is let in again", func() bool {
		args := strings.Fields(other.Isle(w.t, "cluster", "token"))
		out, err := h.Try(append(args[1:], "--name", h.name)...)
		w.note("%s: isle %s: %v: %s", h.name, strings.Join(args[1:], " "), err, out)
		return err == nil
	})
	w.heal()
}

// heal puts everything right, and looks.
func (w *walk) heal() {
	w.t.Helper()
	w.note("heal")
	for port := range w.cuts {
		w.site.heal(port)
	}
	clear(w.cuts)
	if w.far != nil {
		w.near()
	}
	for h := range w.down {
		w.must(h.Start())
	}
	clear(w.down)
	w.busy.Wait()
	w.gathered(w.all...)
	for _, h := range w.all {
		w.healthy(h)
	}
	w.model(w.all[2], w.all...)
	w.talk()
	w.log = nil
}
