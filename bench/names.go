package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const (
	namesNetwork = "bench-dns"
	namesTarget  = "bench-target"
	namesAsker   = "bench-asker"
)

func takesNames(o options) time.Duration {
	return 20*time.Second + time.Duration(o.few()+1)*6*4*(o.time+300*time.Millisecond)
}

// names measures an engine's name server: names of containers, and names of
// outside, for which it asks a server on its host that answers at once.
func names(ctx context.Context, s *session) error {
	list := s.engines(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := s.upstreams(ctx, list)
	defer stop()
	defer each(list, removeNames)
	if err == nil {
		err = each(list, func(e engine) error { return readyNames(ctx, e) })
	}
	if err != nil {
		return err
	}
	s.header(list)
	s.measureNames(ctx, list)
	return nil
}

// upstreams starts the servers; stop ends them.
func (s *session) upstreams(ctx context.Context, list []engine) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var servers []*exec.Cmd
	for _, e := range list {
		cmd := e.onHost(ctx, s.load, "upstream", e.addr+":53")
		if startErr := cmd.Start(); startErr != nil {
			err = errors.Join(err, startErr)
			continue
		}
		servers = append(servers, cmd)
	}
	return func() {
		cancel()
		for _, cmd := range servers {
			cmd.Wait()
		}
	}, err
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

func (s *session) measureNames(ctx context.Context, list []engine) {
	ask := func(ctx context.Context, e engine, args ...string) (loaded, error) {
		all := append([]string{"exec", namesAsker, "/load", "dns", "-time", s.time.String()}, args...)
		var l loaded
		err := patiently(func() (err error) {
			l, err = load(exec.CommandContext(ctx, e.cli[0], append(e.cli[1:len(e.cli):len(e.cli)], all...)...))
			return err
		})
		if err == nil && l.Lost*100 > l.Count {
			err = fmt.Errorf("%s: %d of %d questions without an answer", strings.Join(all, " "), l.Lost, l.Count+l.Lost)
		}
		return l, err
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"a container's name", []string{namesTarget}},
		{"one name of outside", []string{"www.example.com"}},
		{"new names of outside", []string{"-fresh", "example.com"}},
	} {
		for _, workers := range []int{8, 1} {
			name := fmt.Sprintf("%s, %s: ", c.name, count(workers, "worker"))
			args := append([]string{"-workers", strconv.Itoa(workers)}, c.args...)
			s.run(ctx, trial{metrics: []metric{{name + "questions/s", true}, {name + "median, µs", false}, {name + "99th percentile, µs", false}},
				engines: list, rounds: s.few(), fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
					l, err := ask(ctx, e, args...)
					return []float64{l.Rate, l.P50, l.P99}, err
				}})
		}
	}
}
