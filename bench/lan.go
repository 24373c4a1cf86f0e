package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

const (
	lanName   = "bench-lan"
	handName  = "bench-hand"
	lanUplink = "up0" // of every host: bench/peerhost makes it
)

// errNoSuchLinks is a kind of link that this kernel does not have.
var errNoSuchLinks = errors.New("this kernel has no such links")

func takesLAN(o options) time.Duration {
	return 20*time.Second + 2*time.Duration(o.few()+1)*4*2*(o.time+150*time.Millisecond)
}

// lan measures endpoints on the LAN of the first engine's host, from a neighbour, beside a
// link of the same kind on the same interface that was made by hand. Both are in containers
// of the engine, so that the links are all that differs.
func lan(ctx context.Context, s *session) error {
	outside, _, err := s.outside()
	if err != nil {
		return err
	}
	for _, kind := range []string{"macvlan", "ipvlan"} {
		err := s.lanOf(ctx, kind, outside)
		if errors.Is(err, errNoSuchLinks) {
			fmt.Fprintf(s.out, "%s is left out: %v\n", kind, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

func (s *session) lanOf(ctx context.Context, kind string, outside engine) error {
	e := s.all[0]
	s.headed = false
	defer removeLAN(e)
	hand, err := byHand(ctx, e, kind)
	if err != nil {
		return err
	}
	endpoint, err := s.serveLAN(ctx, e, kind)
	if err != nil {
		return err
	}
	s.measurePath(ctx, way{"LAN → " + kind, s.asHost(func(engine) engine { return outside }), func(e engine) string { return e.addr }, s.few()}, []engine{endpoint, hand})
	return s.attachLAN(ctx, e, kind)
}

// serveLAN starts a container on the LAN: the engine, with its address.
func (s *session) serveLAN(ctx context.Context, e engine, kind string) (engine, error) {
	endpoint := e
	endpoint.addr = onLAN(e, 200)
	if err := e.run(ctx, "network", "create", "-d", kind, "-o", "parent="+lanUplink, "--subnet", onLAN(e, 0)+"/24", "--gateway", onLAN(e, 2), lanName); err != nil {
		return endpoint, err
	}
	return endpoint, serveOn(ctx, e, lanName, "--network", lanName, "--ip", endpoint.addr)
}

// serveOn starts a container that answers.
func serveOn(ctx context.Context, e engine, name string, args ...string) error {
	args = append([]string{"run", "-d", "--name", name, "-v", loadInContainer}, args...)
	return e.run(ctx, append(args, imageName, "/load", "serve", ":"+sinkPort, ":"+echoPort)...)
}

// removeLAN forgives what is not there.
func removeLAN(e engine) error {
	e.run(context.Background(), "rm", "-f", lanName, handName)
	return e.run(context.Background(), "network", "rm", lanName)
}

// attachLAN times a running container's way off the network and on it again.
func (s *session) attachLAN(ctx context.Context, e engine, kind string) error {
	if e.api == nil {
		return nil
	}
	s.headed = false
	s.run(ctx, trial{metrics: []metric{{name: kind + ": disconnect a running one, ms"}, {name: kind + ": connect it again, ms"}}, engines: []engine{e}, rounds: s.rounds,
		fn: func(ctx context.Context, e engine, _ int) ([]float64, error) {
			off, err := took(func() error { return e.api.disconnect(ctx, lanName, lanName) })
			if err != nil {
				return nil, err
			}
			on, err := took(func() error { return e.api.connect(ctx, lanName, lanName) })
			return []float64{off, on}, err
		}})
	return nil
}

// onLAN is an address in the /24 of the host's uplink.
func onLAN(e engine, last byte) string {
	a := netip.MustParseAddr(e.addr).As4()
	a[3] = last
	return netip.AddrFrom4(a).String()
}

// byHand starts a container without a network and gives it a link on the uplink of e's host,
// as an administrator would.
func byHand(ctx context.Context, e engine, kind string) (hand engine, err error) {
	hand = engine{name: "by hand", addr: onLAN(e, 201)}
	if err := serveOn(ctx, e, handName, "--network", "none"); err != nil {
		return hand, err
	}
	pid, err := e.pid(ctx, handName)
	if err != nil {
		return hand, err
	}
	for _, line := range linkByHand(kind, pid, hand.addr) {
		if err := e.administer(ctx, line); err != nil {
			return hand, err
		}
	}
	return hand, nil
}

// pid is the number of a container's process on the engine's host.
func (e engine) pid(ctx context.Context, container string) (string, error) {
	out, err := output(e.command(ctx, "inspect", "-f", "{{.State.Pid}}", container))
	return strings.TrimSpace(string(out)), err
}

// linkByHand is what is typed to give a process a link on the uplink.
func linkByHand(kind, pid, addr string) []string {
	mode := map[string]string{"macvlan": "bridge", "ipvlan": "l2"}[kind]
	inside := "nsenter -t " + pid + " -n ip "
	return []string{
		"ip link add link " + lanUplink + " name eth0 netns " + pid + " type " + kind + " mode " + mode,
		inside + "addr add " + addr + "/24 dev eth0",
		inside + "link set eth0 up",
	}
}

// administer runs a command on the engine's host, which knows processes by their numbers
// there.
func (e engine) administer(ctx context.Context, line string) error {
	return e.administerFor(ctx, e, line)
}

// administerFor does so in the network of another host.
func (e engine) administerFor(ctx context.Context, other engine, line string) error {
	args := append([]string{"-t", e.host, "-m", "-p", "-r", "-w", "--net=/proc/" + other.host + "/ns/net", "--"}, strings.Fields(line)...)
	_, err := output(exec.CommandContext(ctx, "nsenter", args...))
	if err != nil && strings.Contains(err.Error(), "Unknown device type") {
		return errNoSuchLinks
	}
	return err
}
