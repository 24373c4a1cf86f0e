package main

import (
	"context"
	"time"
)

const imageName = "isle/toolbox"

// timing is a case whose only value is its time.
type timing struct {
	name string
	fn   func(ctx context.Context, e engine, round int) error
	api  bool // needs an API socket
}

func timings() []timing {
	return []timing{
		{"CLI --help", func(ctx context.Context, e engine, _ int) error { return e.run(ctx, "--help") }, false},
		{"CLI run --rm --network none true", cliRun("--network", "none"), false},
		{"CLI run --rm true, bridge", cliRun(), false},
		{"CLI run --rm -p true, bridge", cliRun("-p", "18080:80"), false},
		{"API create+start+wait+remove, none", apiLife("none", 0), true},
		{"API create+start+wait+remove, bridge", apiLife("bridge", 0), true},
		{"API create+start+wait+remove, bridge, a port", apiLife("bridge", 18081), true},
		{"API start of a created container, bridge, a port", (&startCase{}).round, true},
		{"API exec true", execTrue, true},
		{"CLI exec true", cliExec, false},
	}
}

func takesLife(o options) time.Duration {
	return time.Duration(o.rounds+1) * 8 * time.Second
}

// life times what a user waits for.
func life(ctx context.Context, s *session) error {
	list := s.engines(false)
	for _, t := range timings() {
		s.run(ctx, trial{metrics: []metric{{name: t.name}}, engines: list, rounds: s.rounds, fn: func(ctx context.Context, e engine, round int) ([]float64, error) {
			if t.api && e.api == nil {
				return nil, nil
			}
			ms, err := took(func() error { return t.fn(ctx, e, round) })
			return []float64{ms}, err
		}})
	}
	return nil
}

func cliRun(flags ...string) func(context.Context, engine, int) error {
	args := append(append([]string{"run", "--rm"}, flags...), imageName, "true")
	return func(ctx context.Context, e engine, _ int) error { return e.run(ctx, args...) }
}

func apiLife(network string, port int) func(context.Context, engine, int) error {
	return func(ctx context.Context, e engine, _ int) error { return e.api.life(ctx, network, port) }
}

// startCase times the start alone: it keeps a stopped container per engine.
type startCase struct{ ids map[string]string }

func (s *startCase) round(ctx context.Context, e engine, _ int) error {
	if s.ids == nil {
		s.ids = map[string]string{}
	}
	if s.ids[e.name] == "" {
		id, err := e.api.create(ctx, "bridge", onePort(18082), "true")
		if err != nil {
			return err
		}
		s.ids[e.name] = id
	}
	return e.api.startWait(ctx, s.ids[e.name])
}

func execTrue(ctx context.Context, e engine, round int) error {
	id, err := e.api.sleeper(ctx)
	if err != nil {
		return err
	}
	return e.api.exec(ctx, id, "true")
}

func cliExec(ctx context.Context, e engine, round int) error {
	if round == 0 {
		e.run(ctx, "rm", "-f", "bench-sleeper-cli")
		if err := e.run(ctx, "run", "-d", "--name", "bench-sleeper-cli", imageName, "sleep", "100000"); err != nil {
			return err
		}
	}
	return e.run(ctx, "exec", "bench-sleeper-cli", "true")
}
