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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outside, bare, err := s.outside()
	if err != nil {
		return err
	}
	server := bare.onHost(ctx, s.load, "serve", ":"+sinkPort, ":"+echoPort)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { cancel(); server.Wait() }()
	list := s.engines(false)
	defer each(list, func(e engine) error { return e.run(context.Background(), "rm", "-f", pathName) })
	if err := each(list, func(e engine) error { return servePath(ctx, e) }); err != nil {
		return err
	}
	list = append(list, bare)
	s.header(list)
	s.measurePath(ctx, "outside → port", list, func(e engine, args ...string) *exec.Cmd { return outside.onHost(ctx, args...) }, func(e engine) string { return e.addr })
	s.measurePath(ctx, "host → 127.0.0.1:port", list, func(e engine, args ...string) *exec.Cmd { return e.onHost(ctx, args...) }, func(engine) string { return "127.0.0.1" })
	return nil
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

// measurePath takes the four measurements of a way. client runs a program where
// the way begins; to is the address at which it ends.
func (s *session) measurePath(ctx context.Context, way string, list []engine, client func(engine, ...string) *exec.Cmd, to func(engine) string) {
	one := func(e engine, port string, args ...string) (loaded, error) {
		args = append(append([]string{s.load}, args...), "-time", s.time.String(), to(e)+":"+port)
		var l loaded
		return l, patiently(func() (err error) { l, err = load(client(e, args...)); return err })
	}
	for _, streams := range []int{1, 4} {
		name := fmt.Sprintf("%s, %s: ", way, count(streams, "stream"))
		s.run(ctx, trial{metrics: []metric{{name + "Gbit/s", true}, {name + "CPU s/GB", false}}, engines: list, rounds: s.few(),
			fn: func(_ context.Context, e engine, _ int) ([]float64, error) {
				l, err := one(e, sinkPort, "stream", "-streams", strconv.Itoa(streams))
				return []float64{l.Rate, l.CPU}, err
			}})
	}
	s.run(ctx, trial{metrics: []metric{{way + ": round trip, µs", false}, {way + ": 99th percentile, µs", false}}, engines: list, rounds: s.few(),
		fn: func(_ context.Context, e engine, _ int) ([]float64, error) {
			l, err := one(e, echoPort, "ping")
			return []float64{l.P50, l.P99}, err
		}})
	s.run(ctx, trial{metrics: []metric{{way + ": connections/s", true}}, engines: list, rounds: s.few(),
		fn: func(_ context.Context, e engine, _ int) ([]float64, error) {
			l, err := one(e, echoPort, "connect")
			return []float64{l.Rate}, err
		}})
}
