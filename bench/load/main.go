// Command load is the traffic of bench: one static program that runs in every
// engine's containers, on their hosts and outside of them, so that only the way
// between differs.
//
//	load serve SINK ECHO             answer stream at SINK, ping and connect at ECHO
//	load stream [flags] ADDR         bytes to a sink, as many as go
//	load ping [flags] ADDR           round trips of one byte on one connection
//	load connect [flags] ADDR        connections of one byte, one after another
//	load dns [flags] NAME            questions to the first server of /etc/resolv.conf, or another
//	load await NAME:PORT             until a name is known, and there is an answer at its port
//	load gone NAME                   until a name is known no more
//	load upstream ADDR               a name server that knows every name
//
// A client prints one JSON object. Addresses are IPv4.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// result is what a client prints; what it did not measure is left out. Points in time
// are nanoseconds of the machine's clock, which all of its containers have.
type result struct {
	Rate  float64 `json:"rate,omitempty"`  // Gbit/s, or so many per second
	CPU   float64 `json:"cpu,omitempty"`   // the machine's CPU seconds per GB
	P50   float64 `json:"p50,omitempty"`   // µs
	P99   float64 `json:"p99,omitempty"`   // µs
	Count int     `json:"count,omitempty"` // answers
	Lost  int     `json:"lost,omitempty"`  // questions without one

	Named   int64 `json:"named,omitempty"`   // the name was known
	Reached int64 `json:"reached,omitempty"` // the port answered
	Gone    int64 `json:"gone,omitempty"`    // the name was known no more
}

type options struct {
	time    time.Duration
	streams int
	workers int
	fresh   bool
	server  string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: load serve|stream|ping|connect|dns|await|gone|upstream [flags] ADDR")
	}
	var o options
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	fs.DurationVar(&o.time, "time", time.Second, "how long")
	fs.IntVar(&o.streams, "streams", 1, "connections of stream")
	fs.IntVar(&o.workers, "workers", 1, "questions at a time of dns")
	fs.BoolVar(&o.fresh, "fresh", false, "dns: another name below NAME for each question")
	fs.StringVar(&o.server, "server", "", "dns: address and port of the server to ask")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		return serve(fs.Arg(0), fs.Arg(1))
	case "upstream":
		return upstream(fs.Arg(0))
	}
	client := map[string]func(options, string) (result, error){"stream": stream, "ping": ping, "connect": connect, "dns": dnsLoad, "await": await, "gone": gone}[args[0]]
	if client == nil {
		return fmt.Errorf("no mode %q", args[0])
	}
	r, err := client(o, fs.Arg(0))
	if err != nil {
		return fmt.Errorf("%s %s: %w", args[0], fs.Arg(0), err)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
