package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func takesSlope(o options) time.Duration {
	t := time.Duration(o.slope) * 750 * time.Millisecond
	for _, n := range o.attach {
		t += time.Duration(o.rounds+1) * 400 * time.Millisecond
		if n == o.attach[len(o.attach)-1] {
			t += time.Duration(n) * 80 * time.Millisecond
		}
		if n <= o.peerAttach {
			t += time.Duration(o.rounds+1) * 2 * time.Second
		}
	}
	return t + time.Duration(o.peerAttach)*500*time.Millisecond
}

func slope(ctx context.Context, s *session) error {
	return errors.Join(attachSlope(ctx, s), portSlope(ctx, s))
}

// portSlope starts containers with a port each, one after another, and takes
// them down again, for each engine with an API.
func portSlope(ctx context.Context, s *session) error {
	if s.slope == 0 || s.only != "" {
		return nil
	}
	fmt.Fprintf(s.out, "\n%-*s%*s%*s%*s%*s%*s%*s\n", nameWidth-20, fmt.Sprintf("%d containers with a port each", s.slope),
		ratioWidth, "first 50, s", ratioWidth, "last 50, s", ratioWidth, "last/first", ratioWidth, "up, s", ratioWidth, "down, s", ratioWidth, "MiB each")
	for _, e := range s.engines(true) {
		if err := portSlopeOf(ctx, s, e); err != nil {
			s.note(e, "containers with a port each", err)
		}
	}
	return nil
}

func portSlopeOf(ctx context.Context, s *session, e engine) error {
	before, start := memory(e), time.Now()
	ids, batches, err := inBatches(ctx, e, s.slope)
	up, each := time.Since(start), float64(memory(e)-before)/float64(s.slope)/1024
	start = time.Now()
	if err := errors.Join(err, removeAll(ctx, e, ids)); err != nil {
		return err
	}
	first, last := batches[0].Seconds(), batches[len(batches)-1].Seconds()
	fmt.Fprintf(s.out, "%-*s%*.2f%*.2f%*.2f%*.1f%*.1f%*.2f\n", nameWidth-20, e.name, ratioWidth, first, ratioWidth, last, ratioWidth, last/first,
		ratioWidth, up.Seconds(), ratioWidth, time.Since(start).Seconds(), ratioWidth, each)
	return nil
}

// inBatches starts n containers and says how long each fifty took.
func inBatches(ctx context.Context, e engine, n int) (ids []string, batches []time.Duration, err error) {
	for len(ids) < n {
		t := time.Now()
		for range min(50, n-len(ids)) {
			id, err := e.api.sleeping(ctx, "bridge", onePort(20000+len(ids)))
			if id != "" {
				ids = append(ids, id)
			}
			if err != nil {
				return ids, batches, err
			}
		}
		batches = append(batches, time.Since(t))
	}
	return ids, batches, nil
}

func removeAll(ctx context.Context, e engine, ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, e.api.remove(ctx, id))
	}
	return errors.Join(errs...)
}
