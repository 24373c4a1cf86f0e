package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

const (
	attachNetwork = "bench-attach"
	attachSubnet  = "10.201.0.0/16"
)

// crew are the containers that run on each engine while others are measured.
type crew struct {
	mu  sync.Mutex
	ids map[string][]string
}

// grow brings an engine to n containers, each made by start.
func (c *crew) grow(e engine, n int, start func(i int) (string, error)) error {
	for i := c.size(e); i < n; i++ {
		id, err := start(i)
		if id != "" {
			c.mu.Lock()
			c.ids[e.name] = append(c.ids[e.name], id)
			c.mu.Unlock()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *crew) size(e engine) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids[e.name])
}

func (c *crew) remove(ctx context.Context, list []engine) error {
	return each(list, func(e engine) error { return removeAll(ctx, e, c.ids[e.name]) })
}

// attachSlope measures what one more container costs on a network with n.
func attachSlope(ctx context.Context, s *session) (err error) {
	list := s.engines(true)
	if !s.wanted(attachMetrics(1)) {
		return nil
	}
	if err := each(list, func(e engine) error { return e.api.createNetwork(ctx, attachNetwork, attachSubnet) }); err != nil {
		return err
	}
	c := &crew{ids: map[string][]string{}}
	defer func() {
		err = errors.Join(err, c.remove(ctx, list), each(list, func(e engine) error { return e.api.removeNetwork(ctx, attachNetwork) }))
	}()
	return attachPoints(ctx, s, list, c)
}

func attachPoints(ctx context.Context, s *session, list []engine, c *crew) error {
	starts := map[int]float64{}
	for _, n := range s.attach {
		here := list[:1]
		if n <= s.peerAttach {
			here = list
		}
		here, err := s.ready(here, "the crowd", func(e engine) error {
			return c.grow(e, n, func(int) (string, error) { return e.api.sleeping(ctx, attachNetwork, publishing{}) })
		})
		if err != nil {
			return err
		}
		got := s.run(ctx, trial{metrics: attachMetrics(n), engines: here, rounds: s.rounds, fn: attachOne})
		starts[n] = median(got[attachMetrics(n)[0].name][list[0].name])
	}
	first, last := s.attach[0], s.attach[len(s.attach)-1]
	fmt.Fprintf(s.out, "%s: create+start among %d takes %.2f times as long as among %d\n", list[0].name, last, starts[last]/starts[first], first)
	return nil
}

func attachMetrics(n int) []metric {
	among := fmt.Sprintf("attach among %d: ", n)
	return []metric{{name: among + "create+start, ms"}, {name: among + "disconnect a running one, ms"}, {name: among + "connect it again, ms"}}
}

// attachOne starts one more container, takes it off the network and puts it on
// again while it runs.
func attachOne(ctx context.Context, e engine, _ int) (values []float64, err error) {
	var id string
	defer func() {
		if id != "" {
			err = errors.Join(err, e.api.remove(ctx, id))
		}
	}()
	for _, step := range []func() error{
		func() (err error) { id, err = e.api.sleeping(ctx, attachNetwork, publishing{}); return err },
		func() error { return e.api.disconnect(ctx, attachNetwork, id) },
		func() error { return e.api.connect(ctx, attachNetwork, id) },
	} {
		ms, err := took(step)
		if err != nil {
			return nil, err
		}
		values = append(values, ms)
	}
	return values, nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return quantile(v, 0.5)
}
