package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const crowdPorts = 32

func takesCrowd(o options) time.Duration {
	return time.Duration(o.containers)*700*time.Millisecond + time.Duration(o.rounds+1)*8*time.Second
}

// crowd starts a container with 32 ports while others run, each of which has one
// port: with 32 each, docker would need hours and 30,000 processes.
func crowd(ctx context.Context, s *session) error {
	list := s.engines(true)
	name := fmt.Sprintf("%d ports among %d containers: ", crowdPorts, s.containers)
	t := trial{metrics: []metric{{name: name + "create+start, ms"}, {name: name + "remove, ms"}}, engines: list, rounds: s.rounds, fn: crowdOne}
	if !s.wanted(t.metrics) {
		return nil
	}
	c := &crew{ids: map[string][]string{}}
	var err error
	t.engines, err = s.ready(list, "the crowd", func(e engine) error {
		return c.grow(e, s.containers, func(i int) (string, error) { return e.api.sleeping(ctx, "bridge", onePort(20000+i)) })
	})
	if err == nil {
		s.run(ctx, t)
	}
	return err // bench/run takes the crowd away with its host: docker would need minutes
}

func crowdOne(ctx context.Context, e engine, _ int) ([]float64, error) {
	var id string
	start, err := took(func() (err error) { id, err = e.api.sleeping(ctx, "bridge", ports(10000, crowdPorts)); return err })
	if id == "" {
		return nil, err
	}
	remove, removeErr := took(func() error { return e.api.remove(ctx, id) })
	return []float64{start, remove}, errors.Join(err, removeErr)
}
