// Package cni is the driver of networks whose interfaces are made by CNI plugins:
// programs that are started with a verb (ADD, CHECK, DEL, GC, STATUS), a configuration
// on their standard input and the path of a namespace.
// README.md says what a user may set; conf.go reads a configuration, kept.go keeps it
// with the network, noted.go knows what may be attached to it, exec.go runs a program,
// plugins.go is what libcni runs programs through, args.go tells plugins what the user
// has asked for, result.go reads what they say; make.go, attach.go and keep.go are the
// verbs.
//
// Traps. A configuration that changes later must not leave things behind, so a network
// has a copy of its own from the beginning, and DEL is given the arguments of ADD.
// Plugins are believed nothing: how long they run, how much they print and what they
// say is bounded and checked. libcni's DEL ends at the first plugin that fails; here
// the others are asked all the same. What was noted before an ADD and no record knows
// is taken away by Keep, never what this process has attached itself.
package cni
