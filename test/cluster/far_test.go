package cluster

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestFar: a cluster whose segments are far from each other comes to be, works and takes
// nobody for dead, with the lease that hosts have when nobody asks for another.
func TestFar(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, kind{lease: 10})
	d := distance{delay: 100 * time.Millisecond}
	if os.Getenv("LAB") == "full" {
		d.delay *= 3 // a join is fifty times there and back
	}
	s.apart(d)
	s.joinFive()
	s.populate()
	begin := time.Now()
	s.must(connect(t, s.box(1, "c1"), s.box(4, "c4"), s.box(4, "c4").on("app")).pass())
	if took := time.Since(begin); took < 3*d.delay {
		t.Fatalf("a connection and a byte across took %v: the segments are not far from each other", took)
	}
	alive := s.alive()
	for _, h := range s.all {
		s.healthy(h)
	}
	s.lossy()
	if gone := alive(); gone != "" {
		t.Errorf("hosts were taken for dead: %s", gone)
	}
}

// lossy: one frame of twenty gets lost, and some are overtaken.
func (s *site) lossy() {
	s.apart(distance{delay: 100 * time.Millisecond, loss: 0.05, late: 0.01})
	defer s.near()
	c1, c4 := s.box(1, "c1"), s.box(4, "c4")
	goesOn(s.t, connect(s.t, c1, c4, c4.on("app")), "loss", func() {
		s.all[1].run("far")
		s.model(s.all[2], s.all...)
		s.all[1].Isle(s.t, "rm", "-f", "far")
		s.model(s.all[2], s.all...)
	})
}

// alive watches whether all hosts live, until it is asked: it tells when they did not.
func (s *site) alive() func() string {
	stop, said := make(chan struct{}), make(chan string)
	go func() {
		var gone []string
		for {
			for _, h := range s.all {
				if got := h.alive(); got != s.named(s.all...) {
					gone = append(gone, h.name+" saw: "+got)
				}
			}
			select {
			case <-stop:
				said <- strings.Join(gone, "\n")
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return func() string { close(stop); return <-said }
}
