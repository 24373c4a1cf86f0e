// Command bench times Isle beside its peers, every round in turn (isle, docker,
// podman, isle, …), and prints medians and ratios. It is started by bench/run,
// which brings the engines up on hosts of their own.
//
// The machines are shared and noisy: only ratios taken in one run mean
// anything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	rounds int
	only   string
	time   time.Duration // of one measurement under load

	containers int   // that run while others start
	slope      int   // containers with a port each
	attach     []int // containers on a network
	ports      []int // ports of a container
	peerAttach int   // the peers' last of attach
	peerPorts  int   // the peers' last of ports
	load       string
}

func main() {
	o := options{attach: []int{1, 100, 500, 1000}, ports: []int{1, 100, 1000, 10000}}
	flag.IntVar(&o.rounds, "rounds", 10, "rounds of each case; groups path and dns take a third")
	flag.StringVar(&o.only, "only", "", "cases whose name has this text")
	flag.DurationVar(&o.time, "time", time.Second, "groups path, dns: how long one measurement takes")
	flag.IntVar(&o.containers, "n", 470, "group start: containers that run already")
	flag.IntVar(&o.slope, "slope", 300, "group slope: containers with a port each, one after another; 0: leave it out")
	flag.Var((*counts)(&o.attach), "attach", "group slope: containers on the network to which one more is attached")
	flag.Var((*counts)(&o.ports), "ports", "group publish: ports of one container")
	flag.IntVar(&o.peerAttach, "peer-attach", 100, "group slope: the most containers for -attach that peers get")
	flag.IntVar(&o.peerPorts, "peer-ports", 1000, "group publish: the most ports that peers get")
	flag.StringVar(&o.load, "load", "bin/load", "the program of bench/load")
	names := flag.String("group", "all", "groups, separated by commas: "+strings.Join(groupNames(), ", "))
	engines := flag.String("engines", "", "name=SOCKET=PID=ADDR=CLI …; separated by commas")
	pairs := flag.String("pairs", "", "group overlay: two hosts of a cluster each, one after another, as -engines")
	flag.Parse()
	if err := bench(o, *names, *engines, *pairs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(o options, names, engines, pairs string) error {
	chosen, err := chooseGroups(names)
	if err != nil {
		return err
	}
	all, err := parseEngines(engines)
	if err != nil {
		return err
	}
	two, err := parsePairs(pairs)
	if err != nil {
		return err
	}
	s := &session{options: o, all: all, pairs: two, out: os.Stdout}
	s.announce(chosen)
	for _, g := range chosen {
		start := time.Now()
		s.headed = false
		fmt.Fprintf(s.out, "\n%s: %s\n", g.name, g.about)
		if err := g.run(context.Background(), s); err != nil {
			s.failed = append(s.failed, fmt.Errorf("group %s: %w", g.name, err))
		}
		fmt.Fprintf(s.out, "(%s took %s)\n", g.name, time.Since(start).Round(time.Second))
	}
	return errors.Join(s.failed...)
}

// counts is a flag: numbers in rising order, separated by commas.
type counts []int

func (c *counts) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*c), " ", ","), "[]")
}

func (c *counts) Set(s string) error {
	*c = nil
	for _, f := range strings.Split(s, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 || len(*c) > 0 && n <= (*c)[len(*c)-1] {
			return fmt.Errorf("%q is not a list of rising numbers", s)
		}
		*c = append(*c, n)
	}
	return nil
}
