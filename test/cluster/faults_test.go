package cluster

import (
	"strings"
	"time"
)

// hostDies: what was on a host that is gone is gone within its lease, and back with it.
func hostDies(s *site) {
	rest := []*host{s.all[0], s.all[2], s.all[3], s.all[4]}
	s.die(s.all[1])
	s.gathered(rest...)
	s.model(s.all[2], rest...)
	s.revive(s.all[1])
	s.gathered(s.all...)
	s.model(s.all[2], s.all...)
}

// refusedSoon runs a command that cannot be done without the others: it ends before long,
// and says why.
func (s *site) refusedSoon(h *host, args ...string) {
	s.t.Helper()
	begin := time.Now()
	out, err := h.Try(args...)
	if took := time.Since(begin); err == nil || took > time.Minute || !strings.Contains(out, "cluster cannot be changed now") {
		s.t.Errorf("%s: isle %s: %v after %v: %s", h.name, strings.Join(args, " "), err, took, out)
	}
}

// partition: two hosts are without the three. On both sides what is there goes on; who
// has the quorum forgets the others within the lease, changes things, and lets a host in;
// who has not refuses. When it is over all are one again.
func partition(s *site) {
	h1, h3, h4, h5 := s.all[0], s.all[2], s.all[3], s.all[4]
	c1, c2, c3, c4 := s.box(1, "c1"), s.box(2, "c2"), s.box(3, "c3"), s.box(4, "c4")
	across, west, east := connect(s.t, c1, c4, c4.on("app")), connect(s.t, c1, c2, c2.on("app")), connect(s.t, c3, c4, c4.on("app"))
	taken := c2.on("app")
	s.vacate(h5)
	h5.Isle(s.t, "cluster", "leave")
	s.cut(s.between())
	goesOn(s.t, west, "partition", func() {
		goesOn(s.t, east, "partition", func() {
			s.gathered(h3, h4)
			s.model(h3, h3, h4)
			h5.join(h3)
			s.gathered(h3, h4, h5)
			h5.run("c5", "--ip", taken) // of one that is thought dead
			s.model(h3, h3, h4, h5)
			s.refusedSoon(h1, "run", "-d", "--name", "late", "--network", "app", "isle/toolbox", "sleep", "1000")
			h1.Try("rm", "-f", "late")
		})
	})
	s.heal(s.between())
	s.gathered(s.all...)
	if err := across.pass(); err != nil {
		s.t.Errorf("the flow between the sides is not there again: %v; c1 has %s now: %s", err, c1.on("app"), h1.Tail())
	}
	s.model(h3, s.all...)
	if got := c2.on("app"); got == taken {
		s.t.Errorf("c2 goes on with %s, which c5 has", got)
	}
}

// vacate removes the containers of a host.
func (s *site) vacate(h *host) {
	ids := strings.Fields(h.Isle(s.t, "ps", "-aq"))
	h.Isle(s.t, append([]string{"rm", "-f"}, ids...)...)
}

// rolling: isled of one host after the other is stopped and started.
func rolling(s *site) {
	c1, c4 := s.box(1, "c1"), s.box(4, "c4")
	f := connect(s.t, c1, c4, c4.on("wide"))
	goesOn(s.t, f, "rolling restart", func() {
		for _, h := range s.all {
			h.Stop()
			s.must(h.Start())
			s.healthy(h)
		}
	})
	s.gathered(s.all...)
	s.model(s.all[2], s.all...)
}

// healthy waits until nothing is wrong, so that the next one may go.
func (s *site) healthy(h *host) {
	s.t.Helper()
	h.eventually("nothing is wrong", func() bool { st := h.status(); return st.Quorum && st.Problem == "" })
}

// memberLoss: of three members one is gone: everything works.
func memberLoss(s *site) {
	rest := s.all[1:]
	s.die(s.all[0])
	s.gathered(rest...)
	s.all[4].run("without")
	s.model(s.all[2], rest...)
	s.revive(s.all[0])
	s.gathered(s.all...)
	s.all[4].Isle(s.t, "rm", "-f", "without")
	s.model(s.all[2], s.all...)
}

// quorumLoss: of three members two are gone. Flows go on and changes are refused; a
// container that ends does. When they are back everything works.
func quorumLoss(s *site) {
	h1, h2, h3, h5 := s.all[0], s.all[1], s.all[2], s.all[4]
	h5.run("ends")
	c2, c5 := s.box(2, "c2"), s.box(5, "c5")
	f := connect(s.t, c2, c5, c5.on("app"))
	goesOn(s.t, f, "quorum loss", func() {
		h1.Kill()
		h3.Kill()
		h2.eventually("it is noticed", func() bool { return !h2.status().Quorum })
		s.refusedSoon(h5, "network", "create", "-d", "overlay", "late")
		s.refusedSoon(h2, "run", "-d", "--name", "late", "--network", "app", "isle/toolbox", "sleep", "1000")
		h2.Try("rm", "-f", "late")
		h5.Isle(s.t, "rm", "-f", "ends")
	})
	s.must(h1.Start())
	s.must(h3.Start())
	s.gathered(s.all...)
	s.model(h3, s.all...)
	h2.run("late")
	s.model(h3, s.all...)
}
