package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// firstPort of the ports that are published together.
const firstPort = 20000

func takesPublish(o options) time.Duration {
	t := 5 * time.Second
	for _, n := range o.ports {
		t += time.Second
		if n <= o.peerPorts {
			t += time.Duration(publishRounds(o, n)) * time.Duration(n) * 120 * time.Millisecond
		}
	}
	return t
}

// publishRounds are few for many ports: a peer takes a minute for a thousand.
func publishRounds(o options, n int) int {
	switch {
	case n > o.peerPorts:
		return 3
	case n >= 500:
		return 1
	case n >= 50:
		return min(3, o.rounds)
	}
	return o.rounds
}

// publish measures the start of one container by the number of its ports, and
// what the start leaves in the kernel.
func publish(ctx context.Context, s *session) error {
	list := s.engines(true)
	for _, n := range s.ports {
		here := list
		if n > s.peerPorts {
			here = list[:1]
		}
		p, name := portRange(n), fmt.Sprintf("publish %s: ", count(n, "port"))
		if p.ip != "" {
			name = fmt.Sprintf("publish %s of %s: ", count(n, "port"), p.ip)
		}
		s.run(ctx, trial{
			metrics: []metric{{name: name + "start, ms"}, {name: name + "remove, ms"}, {name: name + "nft rules and elements"}, {name: name + "processes"}},
			engines: here, rounds: publishRounds(s.options, n),
			fn: func(ctx context.Context, e engine, _ int) ([]float64, error) { return publishOne(ctx, e, p) },
		})
	}
	return nil
}

// portRange is of IPv4 alone where two sockets for each port are more than a
// process may have: engines hold the ports that they publish.
func portRange(n int) publishing {
	p := ports(firstPort, n)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && uint64(2*n) > files.Max*9/10 {
		p.ip = "0.0.0.0"
	}
	return p
}

func publishOne(ctx context.Context, e engine, p publishing) (values []float64, err error) {
	before, err := look(ctx, e)
	if err != nil {
		return nil, err
	}
	id, err := e.api.create(ctx, "bridge", p, "sleep", "100000")
	if err != nil {
		return nil, err
	}
	start, err := took(func() error { return e.api.start(ctx, id) })
	after, lookErr := look(ctx, e)
	remove, removeErr := took(func() error { return e.api.remove(ctx, id) })
	if err := errors.Join(err, lookErr, removeErr); err != nil {
		return nil, err
	}
	return []float64{start, remove, float64(after.firewall - before.firewall), float64(after.processes - before.processes)}, nil
}

// footprint is what an engine has in the kernel.
type footprint struct {
	firewall  int // rules, and elements of sets and maps
	processes int
}

func look(ctx context.Context, e engine) (footprint, error) {
	out, err := output(exec.CommandContext(ctx, "nsenter", "-t", e.host, "-m", "-n", "-r", "-w", "--", "nft", "-j", "list", "ruleset"))
	if err != nil {
		return footprint{}, err
	}
	n, err := countFirewall(out)
	return footprint{firewall: n, processes: len(e.processes())}, err
}

// countFirewall counts in what "nft -j list ruleset" prints. iptables of today
// makes nft rules too, and those are listed with the rest.
func countFirewall(ruleset []byte) (n int, err error) {
	var list struct {
		Nftables []struct {
			Rule     *struct{}
			Set, Map *struct{ Elem []json.RawMessage }
		}
	}
	if err := json.Unmarshal(ruleset, &list); err != nil {
		return 0, fmt.Errorf("nft's list of rules: %w", err)
	}
	for _, o := range list.Nftables {
		switch {
		case o.Rule != nil:
			n++
		case o.Set != nil:
			n += len(o.Set.Elem)
		case o.Map != nil:
			n += len(o.Map.Elem)
		}
	}
	return n, nil
}
