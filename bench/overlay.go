package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	overlayName  = "bench-overlay"
	overlayComes = "bench-comes"
	tunnelPort   = "4799" // of tunnels by hand: Isle has its own rules for its own
)

func takesOverlay(o options) time.Duration {
	return 30*time.Second + time.Duration(o.rounds+1)*(4*4*(o.time+150*time.Millisecond)+4*time.Second)
}

// overlay measures the way between containers on two hosts, beside a tunnel between the
// same hosts that was made by hand, one between hosts without an engine, and the peer's.
// All but the peer's are in containers of Isle, so that the links are all that differs.
func overlay(ctx context.Context, s *session) error {
	isle, bare, peers, err := s.overlayPairs()
	if err != nil {
		return err
	}
	defer removeOverlay(s.pairs)
	networks, err := s.ready(append([]engine{isle.near}, nears(peers)...), "a network on both hosts", func(e engine) error {
		return s.openOverlay(ctx, e)
	})
	if err != nil {
		return err
	}
	ways, err := s.overlayWays(ctx, networks, isle, bare)
	if err != nil {
		return err
	}
	s.measurePath(ctx, way{"host → other host", inContainer, func(e engine) string { return e.addr }, s.rounds}, ways)
	s.headed = false
	s.measureComing(ctx, networks)
	return nil
}

// overlayPairs are Isle's, the one without an engine, and those of others.
func (s *session) overlayPairs() (isle, bare pair, peers []pair, err error) {
	for i, p := range s.pairs {
		switch {
		case i == 0:
			isle = p
		case len(p.near.cli) == 0:
			bare = p
		default:
			peers = append(peers, p)
		}
	}
	if isle.near.host == "" || bare.near.host == "" {
		err = errors.New("no pairs of hosts: bench/run makes them")
	}
	return isle, bare, peers, err
}

func nears(pairs []pair) (all []engine) {
	for _, p := range pairs {
		all = append(all, p.near)
	}
	return all
}

func (s *session) other(e engine) engine {
	for _, p := range s.pairs {
		if p.near.host == e.host {
			return p.far
		}
	}
	return engine{}
}

// inContainer has the program of bench/load run in the container that an engine's
// contestant is.
func inContainer(ctx context.Context, e engine, args ...string) *exec.Cmd {
	return e.command(ctx, append([]string{"exec", e.client, "/load"}, args...)...)
}

// openOverlay makes a network, and a container on it on both hosts.
func (s *session) openOverlay(ctx context.Context, e engine) error {
	if err := e.run(ctx, "network", "create", "-d", "overlay", "--attachable", overlayName); err != nil {
		return err
	}
	for _, host := range []engine{e, s.other(e)} {
		err := patiently(func() error {
			host.run(ctx, "rm", "-f", overlayName)
			return serveOn(ctx, host, overlayName, "--network", overlayName, "--dns", host.addr)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// overlayWays are the contestants: from a container of the near host to the address of
// one on the far host.
func (s *session) overlayWays(ctx context.Context, networks []engine, isle, bare pair) (ways []engine, err error) {
	for _, e := range networks {
		e.client = overlayName
		if e.addr, err = addressOn(ctx, s.other(e), overlayName); err != nil {
			return nil, err
		}
		ways = append(ways, e)
	}
	for i, under := range []pair{isle, bare} {
		e := engine{name: []string{"by hand", "no engine"}[i], cli: isle.near.cli, host: isle.near.host, client: fmt.Sprint(handName, i), addr: fmt.Sprintf("10.7%d.0.2", 7+i)}
		if err := tunnelByHand(ctx, isle, under, e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		ways = append(ways[:1+i:1+i], append([]engine{e}, ways[1+i:]...)...)
	}
	return ways, nil
}

// addressOn is a container's on the network.
func addressOn(ctx context.Context, e engine, container string) (string, error) {
	out, err := output(e.command(ctx, "inspect", "-f", "{{json .NetworkSettings.Networks}}", container))
	var networks map[string]struct{ IPAddress string }
	if err == nil {
		err = json.Unmarshal(bytes.TrimSpace(out), &networks)
	}
	return networks[overlayName].IPAddress, err
}

// tunnelByHand starts a container without a network on each host of isle, and joins them
// by a tunnel between the hosts of under, as an administrator would.
func tunnelByHand(ctx context.Context, isle, under pair, e engine) error {
	for i, host := range []engine{isle.near, isle.far} {
		if err := serveOn(ctx, host, e.client, "--network", "none"); err != nil {
			return err
		}
		pid, err := host.pid(ctx, e.client)
		if err != nil {
			return err
		}
		ends := []engine{under.near, under.far}
		here := end{own: i + 1, other: 2 - i, net: strings.TrimSuffix(e.addr, "2"), from: ends[i].addr, to: ends[1-i].addr}
		for _, line := range here.lines(pid) {
			if err := host.administerFor(ctx, ends[i], line); err != nil {
				return err
			}
		}
	}
	return nil
}

// end is one end of a tunnel by hand.
type end struct {
	own, other    int
	net, from, to string
}

// lines are what is typed there. The MTU is what Isle finds.
func (t end) lines(pid string) []string {
	inside := "nsenter -t " + pid + " -n ip "
	return []string{
		"ip link add hand-br mtu 1450 type bridge",
		"ip link add hand-vx mtu 1450 type vxlan id 77 local " + t.from + " dstport " + tunnelPort + " nolearning",
		"ip link set hand-vx master hand-br up",
		"ip link add hand-ve mtu 1450 type veth peer name eth0 mtu 1450 netns " + pid,
		"ip link set hand-ve master hand-br up",
		"ip link set hand-br up",
		fmt.Sprintf("bridge fdb append 02:77:00:00:00:%02x dev hand-vx dst %s", t.other, t.to),
		"bridge fdb append 00:00:00:00:00:00 dev hand-vx dst " + t.to,
		inside + fmt.Sprintf("link set eth0 address 02:77:00:00:00:%02x", t.own),
		inside + fmt.Sprintf("addr add %s%d/24 dev eth0", t.net, t.own),
		inside + "link set eth0 up",
	}
}

// measureComing is how soon the other host knows of a container that starts, and that it
// has gone.
func (s *session) measureComing(ctx context.Context, list []engine) {
	s.run(ctx, trial{metrics: []metric{
		{name: "run -d, ms"}, {name: "… until the other host answers its name, ms"}, {name: "… until there is a connection from there, ms"},
		{name: "rm -f, ms"}, {name: "… until the other host knows the name no more, ms"},
	}, engines: list, rounds: s.rounds, fn: s.coming})
}

func (s *session) coming(ctx context.Context, e engine, _ int) ([]float64, error) {
	far := s.other(e)
	far.client = overlayName
	await := inContainer(ctx, far, "await", overlayComes+":"+echoPort)
	up, came, begun, err := during(await, func() error {
		return serveOn(ctx, e, overlayComes, "--network", overlayName)
	})
	if err != nil {
		return nil, err
	}
	down, went, ended, err := during(inContainer(ctx, far, "gone", overlayComes), func() error { return e.run(ctx, "rm", "-f", overlayComes) })
	return []float64{up, since(begun, came.Named), since(begun, came.Reached), down, since(ended, went.Gone)}, err
}

// since is how many milliseconds passed until ns.
func since(begun time.Time, ns int64) float64 {
	return float64(time.Unix(0, ns).Sub(begun)) / float64(time.Millisecond)
}

// during does fn while watch, which has had time to begin, looks for what it brings about.
func during(watch *exec.Cmd, fn func() error) (ms float64, seen loaded, begun time.Time, err error) {
	done := make(chan error, 1)
	go func() { var err error; seen, err = load(watch); done <- err }()
	time.Sleep(300 * time.Millisecond)
	begun = time.Now()
	ms, err = took(fn)
	return ms, seen, begun, errors.Join(err, <-done)
}

// removeOverlay forgives what is not there.
func removeOverlay(pairs []pair) {
	for _, p := range pairs {
		for _, e := range []engine{p.near, p.far} {
			if len(e.cli) > 0 {
				e.run(context.Background(), "rm", "-f", overlayName, overlayComes, handName+"0", handName+"1")
			}
		}
		if len(p.near.cli) > 0 {
			p.near.run(context.Background(), "network", "rm", overlayName)
		}
	}
}
