package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

const (
	namesNetwork = "bench-dns"
	namesTarget  = "bench-target"
	namesAsker   = "bench-asker"
)

func takesNames(o options) time.Duration {
	return 20*time.Second + time.Duration(o.few()+1)*6*5*(o.time+300*time.Millisecond)
}

// names measures an engine's name server: names of containers, and names of
// outside, for which it asks a server on its host that answers at once. On the bare
// host that server itself is asked: what the asking program and the kernel take.
func names(ctx context.Context, s *session) error {
	all := s.engines(false)
	_, bare, err := s.outside()
	if err != nil {
		return err
	}
	for _, e := range append(all[:len(all):len(all)], bare) {
		stop, err := begin(ctx, e, s.load, "upstream", e.addr+":53")
		if err != nil {
			return err
		}
		defer stop()
	}
	defer each(all, removeNames)
	list, err := s.ready(all, "containers on a network", func(e engine) error { return readyNames(ctx, e) })
	if err != nil {
		return err
	}
	for _, q := range []question{
		{"a container's name", []string{namesTarget}},
		{"one name of outside", []string{"www.example.com"}},
		{"new names of outside", []string{"-fresh", "example.com"}},
	} {
		s.measureNames(ctx, q, append(list[:len(list):len(list)], bare))
	}
	return nil
}

func readyNames(ctx context.Context, e engine) error {
	if err := e.run(ctx, "network", "create", namesNetwork); err != nil {
		return err
	}
	if err := e.run(ctx, "run", "-d", "--name", namesTarget, "--network", namesNetwork, imageName, "sleep", "100000"); err != nil {
		return err
	}
	return e.run(ctx, "run", "-d", "--name", namesAsker, "--network", namesNetwork, "--dns", e.addr, "-v", loadInContainer, imageName, "sleep", "100000")
}

// removeNames forgives what is not there: it also ends what did not begin.
func removeNames(e engine) error {
	e.run(context.Background(), "rm", "-f", namesTarget, namesAsker)
	return e.run(context.Background(), "network", "rm", namesNetwork)
}

// question is what is asked: arguments for the program of bench/load.
type question struct {
	name string
	args []string
}

func (s *session) measureNames(ctx context.Context, q question, list []engine) {
	for _, workers := range []int{8, 1} {
		name := fmt.Sprintf("%s, %s: ", q.name, count(workers, "worker"))
		s.run(ctx, trial{metrics: []metric{{name + "questions/s", true}, {name + "median, µs", false}, {name + "99th percentile, µs", false}},
			engines: list, rounds: s.few(), fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
				l, err := q.ask(ctx, s.options, e, workers)
				return []float64{l.Rate, l.P50, l.P99}, err
			}})
	}
}

// ask asks from inside a container. A server that leaves more than one question
// in a hundred unanswered has no rate.
func (q question) ask(ctx context.Context, o options, e engine, workers int) (l loaded, err error) {
	args := append([]string{"dns", "-time", o.time.String(), "-workers", strconv.Itoa(workers)}, q.args...)
	ask := func() (err error) {
		l, err = load(e.command(ctx, append([]string{"exec", namesAsker, "/load"}, args...)...))
		return err
	}
	if len(e.cli) == 0 {
		args = slices.Insert(args, 1, "-server", e.addr+":53")
		ask = func() (err error) { l, err = load(e.onHost(ctx, append([]string{o.load}, args...)...)); return err }
	}
	err = patiently(ask)
	if err == nil && l.Lost*100 > l.Count {
		err = fmt.Errorf("%d of %d questions without an answer", l.Lost, l.Count+l.Lost)
	}
	return l, err
}
