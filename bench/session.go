package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// session is one run: the flags, the contestants and the table.
type session struct {
	options
	all    []engine // the first is the one that the others are compared with
	pairs  []pair   // of group overlay
	out    io.Writer
	failed []error
	headed bool // this group's columns have names
}

// engines are those that have a command line, and with api an API too.
func (s *session) engines(api bool) []engine {
	return slices.DeleteFunc(slices.Clone(s.all), func(e engine) bool { return len(e.cli) == 0 || api && e.api == nil })
}

// metric is a row of the table.
type metric struct {
	name string
	more bool // more is better
}

// trial is measured for each engine in turn, round after round. The first round
// warms up; with a single round there is none.
type trial struct {
	metrics []metric
	engines []engine
	rounds  int
	fn      func(ctx context.Context, e engine, round int) ([]float64, error) // a value for each metric
}

// samples are values by metric and engine.
type samples map[string]map[string][]float64

// run takes the trial and prints its rows. An engine that fails is left out from
// there on: the others still can be compared.
func (s *session) run(ctx context.Context, t trial) samples {
	got := samples{}
	if !s.wanted(t.metrics) {
		return got
	}
	broken := map[string]bool{}
	for r := range warmUp(t.rounds) + t.rounds {
		for _, e := range t.engines {
			if broken[e.name] {
				continue
			}
			values, err := t.fn(ctx, e, r)
			if err != nil {
				broken[e.name] = true
				s.note(e, t.metrics[0].name, err)
				continue
			}
			if r >= warmUp(t.rounds) {
				got.add(t.metrics, e, values)
			}
		}
	}
	if !s.headed {
		s.header(t.engines)
	}
	for _, m := range t.metrics {
		s.row(m, t.engines, got[m.name])
	}
	return got
}

func warmUp(rounds int) int { return min(1, rounds-1) }

func (s *session) wanted(metrics []metric) bool {
	return slices.ContainsFunc(metrics, func(m metric) bool { return strings.Contains(m.name, s.only) })
}

func (g samples) add(metrics []metric, e engine, values []float64) {
	if values == nil {
		return // not for this engine
	}
	for i, m := range metrics {
		if g[m.name] == nil {
			g[m.name] = map[string][]float64{}
		}
		g[m.name][e.name] = append(g[m.name][e.name], values[i])
	}
}

func (s *session) note(e engine, what string, err error) {
	err = fmt.Errorf("%s: %s: %w", e.name, what, err)
	fmt.Fprintln(s.out, "!", err)
	s.failed = append(s.failed, err)
}

// ready does fn for all of list at the same time and gives those for which it
// succeeded. There is nothing to compare without the first.
func (s *session) ready(list []engine, what string, fn func(engine) error) ([]engine, error) {
	errs := make([]error, len(list))
	var group sync.WaitGroup
	for i, e := range list {
		group.Go(func() { errs[i] = fn(e) })
	}
	group.Wait()
	var able []engine
	for i, e := range list {
		if errs[i] == nil {
			able = append(able, e)
		} else if i > 0 {
			s.note(e, what, errs[i])
		}
	}
	return able, errs[0]
}

// each does fn for all of list at the same time; it is for what is not measured.
func each(list []engine, fn func(engine) error) error {
	errs := make([]error, len(list))
	var group sync.WaitGroup
	for i, e := range list {
		group.Go(func() {
			if err := fn(e); err != nil {
				errs[i] = fmt.Errorf("%s: %w", e.name, err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// took is how many milliseconds fn takes.
func took(fn func() error) (float64, error) {
	start := time.Now()
	err := fn()
	return float64(time.Since(start)) / float64(time.Millisecond), err
}
