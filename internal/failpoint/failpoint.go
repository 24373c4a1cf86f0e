// Package failpoint lets the crash tests kill isled between two steps of a
// verb. It is not a way to inject errors: a point either does nothing or ends
// the process as SIGKILL does, with no deferred call run and nothing flushed.
//
// A point costs one comparison of strings when it is not armed.
package failpoint

import (
	"os"
	"syscall"
)

// Env names the point to die at: ISLE_FAILPOINT=engine/start/after-network.
const Env = "ISLE_FAILPOINT"

var armed = os.Getenv(Env)

// Here dies when name is the armed point.
func Here(name string) {
	if armed != "" && armed == name {
		die()
	}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
