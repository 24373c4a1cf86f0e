// Package runtime runs containers as processes. Client speaks to isle-shim,
// which is the parent of every container; subpackage spec writes the OCI
// configuration, cgroup reads and checks limits, jsonlog is the log format.
//
//	c, err := runtime.New(runtime.Config{RunDir: "/run/isle", ShimPath: "/usr/bin/isle-shim", Log: log})
//	rt, err := c.Find("")
//	pid, err := c.Create(ctx, runtime.Create{ID: id, Bundle: dir, Runtime: rt, Rootfs: mounts})
//	err = c.Start(ctx, id)
//	exit := <-c.Exits(ctx) // then c.Ack and c.Delete
//
// The messages between the two and what becomes of containers when either is
// killed are told in package shim. This package holds no state that matters:
// whatever a Client knows, another one can ask the shim for. It changes no
// namespace and starts no process but the shim.
//
// Traps: an exit is delivered again to the next isled until it is
// acknowledged. Attach to a process that is yet to be made needs Attach.Wait,
// else output from before may be missed. A client that attached before the
// process was started holds it up when it does not read; later ones are dropped.
package runtime

import (
	"errors"
	"io"
	"time"
)

// Proc names a process that the shim started: a container's first one, or,
// with Exec set, an exec session in it.
type Proc struct {
	ID   string
	Exec string
}

// Mount is one mount that makes up the root file system, as for mount(2). The
// shim makes it in a mount namespace of the container's own, so that it is in
// nobody else's mount table and goes when the container does.
type Mount struct {
	Type    string
	Source  string
	Options []string
}

// Stdio says what is connected to a process.
type Stdio struct {
	Terminal bool
	Stdin    bool // keep stdin open for attached clients
	// CloseStdin closes stdin when the first attached client with stdin goes.
	CloseStdin    bool
	Height, Width uint16 // of the terminal; 0: not known
}

// Log says where output goes besides attached clients. Path "" is nowhere.
type Log struct {
	Path     string
	MaxSize  int64 // bytes; 0: no rotation
	MaxFile  int   // files kept, this one included; at least 1
	Attrs    map[string]string
	Compress bool
}

// Create is a container to be made from a bundle.
type Create struct {
	ID      string
	Bundle  string // directory with config.json; its "rootfs" is the mount point
	Runtime Runtime
	Rootfs  []Mount
	Stdio   Stdio
	Log     Log
	// KeepShared: some bind of the container propagates mounts to the host.
	KeepShared bool
	// Filter is the key of the system call filter, see Client.Filter; may be "".
	Filter string
	// Resources checks; see cgroup.
	CgroupPath string // where the container's processes are accounted, for OOM detection
}

// Runtime is an OCI runtime program.
type Runtime struct {
	Name          string
	Path          string
	Args          []string
	Root          string // its state directory
	SystemdCgroup bool
	// StartFIFO: a created container is started by a byte in exec.fifo, as
	// crun's own start does; set by the probe.
	StartFIFO bool
}

// Exit is how a process ended. Code is 128+signal for one that was killed.
type Exit struct {
	Proc
	Code      int
	At        time.Time
	OOMKilled bool
	Pid       int // which run it was; 0: the shim did not tell
}

// Status is what the shim knows of a process.
type Status struct {
	Proc
	Pid     int
	Started bool
	Exit    *Exit // nil: it has not ended
}

// ErrDetached is returned by Attach when the client typed the detach keys.
var ErrDetached = errors.New("detached")

// Attach is a client's side of a process's stdio. Nil streams are not joined.
type Attach struct {
	In       io.Reader
	Out, Err io.Writer // with a terminal everything goes to Out
	// DetachKeys is the sequence that leaves the process; nil: none.
	DetachKeys []byte
	// Wait: the process may be yet to come; its place is held for it.
	Wait bool
	// Ready is called once the streams are joined: output written from now on
	// is delivered. It may be nil.
	Ready func()
}
