// Command bench times Isle beside its peers, every round in turn (isle, docker,
// podman, isle, …), and prints medians and ratios. It is started by bench/run,
// which brings the engines up on hosts of their own.
//
// The machines are shared and noisy: only ratios taken in one run mean
// anything.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// engine is one contestant.
type engine struct {
	name string
	cli  []string // program and arguments that come before the command
	api  *api     // nil: command line only
}

// bench is one case: what is timed, and for whom it can be.
type bench struct {
	name string
	fn   func(ctx context.Context, e engine, round int) error
	api  bool // needs an API socket
}

func main() {
	rounds := flag.Int("rounds", 15, "rounds of each case")
	slope := flag.Int("slope", 300, "containers with a port each for the slope; 0: leave it out")
	only := flag.String("only", "", "cases whose name has this text; \"slope\": none but the slope")
	engines := flag.String("engines", "", "name=SOCKET=CLI …; separated by commas")
	flag.Parse()
	list, err := parse(*engines)
	if err == nil {
		err = run(context.Background(), list, *rounds, *slope, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(s string) ([]engine, error) {
	var list []engine
	for _, item := range strings.Split(s, ",") {
		f := strings.SplitN(item, "=", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("engine %q is not name=socket=command", item)
		}
		e := engine{name: f[0], cli: strings.Fields(f[2])}
		if f[1] != "" {
			a, err := dial(f[1])
			if err != nil {
				return nil, fmt.Errorf("engine %s: %w", e.name, err)
			}
			e.api = a
		}
		list = append(list, e)
	}
	return list, nil
}

func run(ctx context.Context, list []engine, rounds, slope int, only string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	header(w, list)
	for _, b := range cases() {
		if only != "slope" && strings.Contains(b.name, only) {
			times, err := interleave(ctx, b, list, rounds)
			if err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
			row(w, b.name, list, times)
		}
	}
	if err := w.Flush(); err != nil || slope == 0 {
		return err
	}
	return slopes(ctx, list, slope)
}

// interleave gives each engine's times for b; the first round warms up.
func interleave(ctx context.Context, b bench, list []engine, rounds int) (map[string][]time.Duration, error) {
	times := map[string][]time.Duration{}
	for r := range rounds + 1 {
		for _, e := range list {
			if b.api && e.api == nil {
				continue
			}
			start := time.Now()
			if err := b.fn(ctx, e, r); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			if r > 0 {
				times[e.name] = append(times[e.name], time.Since(start))
			}
		}
	}
	return times, nil
}

func header(w *tabwriter.Writer, list []engine) {
	fmt.Fprint(w, "ms: median (p95)\t")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t", e.name)
	}
	for _, e := range list[1:] {
		fmt.Fprintf(w, "%s/%s\t", e.name, list[0].name)
	}
	fmt.Fprintln(w)
}

func row(w *tabwriter.Writer, name string, list []engine, times map[string][]time.Duration) {
	fmt.Fprintf(w, "%s\t", name)
	for _, e := range list {
		if t := times[e.name]; t == nil {
			fmt.Fprint(w, "-\t")
		} else {
			fmt.Fprintf(w, "%.1f (%.1f)\t", ms(quantile(t, 0.5)), ms(quantile(t, 0.95)))
		}
	}
	for _, e := range list[1:] {
		if times[e.name] == nil || times[list[0].name] == nil {
			fmt.Fprint(w, "-\t")
			continue
		}
		fmt.Fprintf(w, "%.1f×\t", ms(quantile(times[e.name], 0.5))/ms(quantile(times[list[0].name], 0.5)))
	}
	fmt.Fprintln(w)
	w.Flush()
}

func quantile(t []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(t))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
