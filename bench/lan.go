package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lanName   = "bench-lan"
	lanUplink = "up0" // of every host: bench/peerhost makes it
)

// errNoSuchLinks is a kind of link that this kernel does not have.
var errNoSuchLinks = errors.New("this kernel has no such links")

func takesLAN(o options) time.Duration {
	return 20*time.Second + 2*time.Duration(o.few()+1)*4*2*(o.time+150*time.Millisecond)
}

// lan measures endpoints on the LAN of the first engine's host, from a neighbour, beside a
// link of the same kind on the same interface that was made by hand.
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
	hand, stop, err := byHand(ctx, e, kind)
	if err != nil {
		return err
	}
	defer stop()
	stopServer, err := begin(ctx, hand, s.load, "serve", ":"+sinkPort, ":"+echoPort)
	if err != nil {
		return err
	}
	defer stopServer()
	defer removeLAN(e)
	endpoint, err := s.serveLAN(ctx, e, kind)
	if err != nil {
		return err
	}
	s.measurePath(ctx, way{"LAN → " + kind, func(engine) engine { return outside }, func(e engine) string { return e.addr }}, []engine{endpoint, hand})
	return s.attachLAN(ctx, e, kind)
}

// serveLAN starts a container on the LAN: the engine, with its address.
func (s *session) serveLAN(ctx context.Context, e engine, kind string) (engine, error) {
	endpoint := e
	endpoint.addr = onLAN(e, 200)
	if err := e.run(ctx, "network", "create", "-d", kind, "-o", "parent="+lanUplink, "--subnet", onLAN(e, 0)+"/24", "--gateway", onLAN(e, 2), lanName); err != nil {
		return endpoint, err
	}
	return endpoint, e.run(ctx, "run", "-d", "--name", lanName, "--network", lanName, "--ip", endpoint.addr, "-v", loadInContainer, imageName, "/load", "serve", ":"+sinkPort, ":"+echoPort)
}

// removeLAN forgives what is not there.
func removeLAN(e engine) error {
	e.run(context.Background(), "rm", "-f", lanName)
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

// byHand makes a namespace with a link on the uplink of e's host, as an administrator would.
// Its end ends the link.
func byHand(ctx context.Context, e engine, kind string) (hand engine, stop func(), err error) {
	pid, stop, err := emptyNamespace(ctx)
	if err != nil {
		return hand, nil, err
	}
	hand = engine{name: "by hand", host: pid, addr: onLAN(e, 201)}
	mode := map[string]string{"macvlan": "bridge", "ipvlan": "l2"}[kind]
	_, err = output(e.onHost(ctx, "ip", "link", "add", "link", lanUplink, "name", "eth0", "netns", pid, "type", kind, "mode", mode))
	for _, args := range []string{"link set lo up", "addr add " + hand.addr + "/24 dev eth0", "link set eth0 up"} {
		if err == nil {
			_, err = output(hand.onHost(ctx, append([]string{"ip"}, strings.Fields(args)...)...))
		}
	}
	if err != nil {
		stop()
	}
	if err != nil && strings.Contains(err.Error(), "Unknown device type") {
		err = errNoSuchLinks
	}
	return hand, stop, err
}

// emptyNamespace is a network namespace that a process keeps.
func emptyNamespace(ctx context.Context) (pid string, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "unshare", "-n", "sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		cancel()
		return "", nil, err
	}
	stop = func() { cancel(); cmd.Wait() }
	pid = strconv.Itoa(cmd.Process.Pid)
	err = patiently(func() error {
		theirs, err := os.Readlink("/proc/" + pid + "/ns/net")
		if ours, _ := os.Readlink("/proc/self/ns/net"); err == nil && theirs == ours {
			err = errors.New("unshare: no namespace yet")
		}
		return err
	})
	if err != nil {
		stop()
	}
	return pid, stop, err
}
