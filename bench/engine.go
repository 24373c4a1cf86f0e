package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// engine is one contestant.
type engine struct {
	name string
	cli  []string // program and arguments that come before the command; nil: a bare host
	api  *api     // nil: command line only
	host string   // a process of its host, whose namespaces are entered
	addr string   // of its host, as seen from the host "outside"

	client string // group overlay: the container that asks
}

// pair is two hosts of one cluster.
type pair struct{ near, far engine }

// parsePairs reads two engines for each pair.
func parsePairs(s string) (all []pair, err error) {
	if s == "" {
		return nil, nil
	}
	list, err := parseEngines(s)
	if err == nil && len(list)%2 != 0 {
		err = fmt.Errorf("%d hosts are no pairs", len(list))
	}
	for i := 0; err == nil && i < len(list); i += 2 {
		all = append(all, pair{list[i], list[i+1]})
	}
	return all, err
}

// parseEngines reads name=SOCKET=PID=ADDR=CLI,….
func parseEngines(s string) ([]engine, error) {
	var list []engine
	for _, item := range strings.Split(s, ",") {
		f := strings.SplitN(item, "=", 5)
		if len(f) != 5 {
			return nil, fmt.Errorf("engine %q is not name=socket=pid=address=command", item)
		}
		e := engine{name: f[0], host: f[2], addr: f[3], cli: strings.Fields(f[4])}
		if f[1] != "" {
			a, err := connectAPI(f[1])
			if err != nil {
				return nil, fmt.Errorf("engine %s: %w", e.name, err)
			}
			e.api = a
		}
		list = append(list, e)
	}
	return list, nil
}

// run runs the engine's command line.
func (e engine) run(ctx context.Context, args ...string) error {
	_, err := output(e.command(ctx, args...))
	return err
}

func (e engine) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, e.cli[0], append(e.cli[1:len(e.cli):len(e.cli)], args...)...)
}

// onHost is a command of this machine in the network of the engine's host. It
// ends with this process.
func (e engine) onHost(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", e.host, "-n", "--"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// begin starts a server on the engine's host; stop ends it.
func begin(ctx context.Context, e engine, args ...string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := e.onHost(ctx, args...)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return func() { cancel(); cmd.Wait() }, nil
}

// output is what cmd prints; what it prints as errors is put into the error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, problem.String(), out)
	}
	return out, nil
}

// loaded is what the program of bench/load prints.
type loaded struct {
	Rate, CPU, P50, P99  float64
	Count, Lost          int
	Named, Reached, Gone int64
}

func load(cmd *exec.Cmd) (l loaded, err error) {
	out, err := output(cmd)
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal(out, &l)
}

// patiently repeats fn until it succeeds, for 5 seconds at most.
func patiently(fn func() error) error {
	end := time.Now().Add(5 * time.Second)
	for {
		err := fn()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
