// Package toolbox is the program isle-toolbox: it finds the command by the name
// that it was called by, or else by its first argument, and runs it.
//
// It is for trying and testing networks and limits from inside a container; the
// commands know the options that people and scripts use, not all there are.
//
// The names are listed in package applets, for the builder of the image; a test
// holds the two lists together.
package toolbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/applets"
	"isle/internal/version"
)

const (
	program  = "isle-toolbox"
	notFound = 127
)

// Main runs the program with argv and returns its exit status.
func Main(argv []string) int {
	name, args := filepath.Base(argv[0]), argv[1:]
	table := commands()
	if _, ok := table[name]; !ok || name == program {
		if len(args) == 0 {
			usage()
			return int(applet.Usage)
		}
		name, args = filepath.Base(args[0]), args[1:]
	}
	if f, ok := table[name]; ok {
		if os.Getpid() == 1 {
			stopOnSignal(fatal(name))
		}
		return run(name, f, args)
	}
	return own(name)
}

// fatal are the signals that end each command when it is the first process of a
// pid namespace, where the kernel ignores them otherwise. Those that handle
// signals themselves are named; everything else is stopped by all of these.
func fatal(command string) []os.Signal {
	switch command {
	case "serve", "ping":
		return nil
	case "sh": // Ctrl-C is for what runs in it
		return []os.Signal{syscall.SIGTERM, syscall.SIGHUP}
	}
	return []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT}
}

func stopOnSignal(signals []os.Signal) {
	if len(signals) == 0 {
		return // to Notify, none means all
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, signals...)
	go func() { os.Exit(128 + int((<-ch).(syscall.Signal))) }()
}

func run(name string, f applet.Func, args []string) int {
	err := f(context.Background(), applet.Std(), args)
	if _, silent := errors.AsType[applet.Exit](err); err != nil && !silent {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	return applet.Status(err)
}

// own are the program's own options.
func own(name string) int {
	switch name {
	case "--list":
		for _, n := range slices.Sorted(slices.Values(applets.Names)) {
			fmt.Println(n)
		}
		return 0
	case "--version":
		fmt.Println(program, version.Version)
		return 0
	case "--help", "-h":
		usage()
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: no command %q; '%s --list' lists them\n", program, name, program)
	return notFound
}

func usage() {
	fmt.Fprintf(os.Stderr, "usage: %s COMMAND [ARG…]\n       %s --list | --version\nA link to %s that has a command's name is that command.\n", program, program, program)
}
