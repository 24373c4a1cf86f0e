package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

const (
	pathName = "bench-path"
	sinkPort = "7000"
	echoPort = "7001"
)

// loadInContainer is where the program of bench/load lies on every engine's
// host; it is mounted to /load.
const loadInContainer = "/data/load:/load:ro"

func takesPath(o options) time.Duration {
	return 10*time.Second + time.Duration(o.few()+1)*2*4*5*(o.time+150*time.Millisecond)
}

// few are the rounds of what takes a second or more by itself.
func (o options) few() int { return max(1, o.rounds/3) }

// path measures a published port from another host, and from the engine's own
// host by 127.0.0.1. "bare" is a host without an engine: the server runs on it.
func path(ctx context.Context, s *session) error {
	outside, bare, err := s.outside()
	if err != nil {
		return err
	}
	stop, err := begin(ctx, bare, s.load, "serve", ":"+sinkPort, ":"+echoPort)
	if err != nil {
		return err
	}
	defer stop()
	all := s.engines(false)
	defer each(all, func(e engine) error { return e.run(context.Background(), "rm", "-f", pathName) })
	list, err := s.ready(all, "a container with a port", func(e engine) error { return servePath(ctx, e) })
	if err != nil {
		return err
	}
	for _, w := range []way{
		{"outside → port", s.asHost(func(engine) engine { return outside }), func(e engine) string { return e.addr }, s.few()},
		{"host → 127.0.0.1:port", s.asHost(func(e engine) engine { return e }), func(engine) string { return "127.0.0.1" }, s.few()},
	} {
		s.measurePath(ctx, w, append(list[:len(list):len(list)], bare))
	}
	return nil
}

// way is from where and by which address an engine's port is reached.
type way struct {
	name   string
	from   func(ctx context.Context, e engine, args ...string) *exec.Cmd // the program of bench/load there
	to     func(engine) string
	rounds int
}

// asHost has the program run on a host.
func (s *session) asHost(from func(engine) engine) func(context.Context, engine, ...string) *exec.Cmd {
	return func(ctx context.Context, e engine, args ...string) *exec.Cmd {
		return from(e).onHost(ctx, append([]string{s.load}, args...)...)
	}
}

// load runs a client at the beginning of the way.
func (w way) load(ctx context.Context, o options, e engine, port string, args ...string) (l loaded, err error) {
	args = append(args, "-time", o.time.String(), w.to(e)+":"+port)
	err = patiently(func() (err error) { l, err = load(w.from(ctx, e, args...)); return err })
	return l, err
}

func servePath(ctx context.Context, e engine) error {
	return e.run(ctx, "run", "-d", "--name", pathName, "-p", sinkPort+":"+sinkPort, "-p", echoPort+":"+echoPort,
		"-v", loadInContainer, imageName, "/load", "serve", ":"+sinkPort, ":"+echoPort)
}

// outside gives the two hosts without an engine.
func (s *session) outside() (outside, bare engine, err error) {
	for _, e := range s.all {
		switch {
		case len(e.cli) == 0 && e.addr == "":
			outside = e
		case len(e.cli) == 0:
			bare = e
		}
	}
	if outside.host == "" || bare.host == "" {
		err = errors.New("no hosts without an engine: bench/run makes them")
	}
	return outside, bare, err
}

// measurePath takes the measurements of a way.
func (s *session) measurePath(ctx context.Context, w way, list []engine) {
	for _, streams := range []int{1, 4} {
		name := fmt.Sprintf("%s, %s: ", w.name, count(streams, "stream"))
		s.run(ctx, trial{metrics: []metric{{name + "Gbit/s", true}, {name + "CPU s/GB", false}}, engines: list, rounds: w.rounds,
			fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
				l, err := w.load(ctx, s.options, e, sinkPort, "stream", "-streams", strconv.Itoa(streams))
				return []float64{l.Rate, l.CPU}, err
			}})
	}
	s.run(ctx, trial{metrics: []metric{{w.name + ": round trip, µs", false}, {w.name + ": 99th percentile, µs", false}}, engines: list, rounds: w.rounds,
		fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
			l, err := w.load(ctx, s.options, e, echoPort, "ping")
			return []float64{l.P50, l.P99}, err
		}})
	s.run(ctx, trial{metrics: []metric{{w.name + ": connections/s", true}}, engines: list, rounds: w.rounds,
		fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
			l, err := w.load(ctx, s.options, e, echoPort, "connect")
			return []float64{l.Rate}, err
		}})
}
