// Package nettools holds the toolbox's network commands: a server that says who
// it is and who asked (serve), clients (get, wget, nc), a resolver (dig), ping,
// a throughput and latency test (perf) and a reader of the kernel's network
// state (ip).
//
// They are for seeing what a network does from inside: every answer names both
// ends, so that translated addresses show.
package nettools
