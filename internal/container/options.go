package container

import (
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/filters"
)

// CreateOptions is a container to be made.
type CreateOptions struct {
	Name       string
	Config     *container.Config
	Host       *container.HostConfig
	Networking *network.NetworkingConfig
	Platform   *ocispec.Platform
}

// ListOptions is which containers to list.
type ListOptions struct {
	All     bool
	Limit   int
	Size    bool
	Filters filters.Args
}

// UpdateOptions is what of a container is to be changed. Nil PortBindings are
// those that it has; others are all that it shall have.
type UpdateOptions struct {
	container.UpdateConfig
	PortBindings network.PortMap
}

// StopOptions is how to stop. Nil Timeout is the container's own.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds; negative: wait for ever
}

// RemoveOptions is how to remove.
type RemoveOptions struct{ Force, Volumes, Link bool }

// LogsOptions is which lines of the log to give.
type LogsOptions struct {
	Stdout, Stderr      bool
	Follow              bool
	Timestamps, Details bool
	Since, Until        time.Time
	Tail                int // lines; negative: all
	// Streams is called once, when it is certain that there is an answer.
	Streams func(tty bool) Streams
}

// AttachOptions is how to attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream, Logs          bool
	DetachKeys            string
	// Streams is called once, when it is certain that there is an answer; it
	// takes the connection over.
	Streams func(tty bool) (Streams, error)
}

// ExecStartOptions is how to start an exec session.
type ExecStartOptions struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
	Streams     func(tty bool) (Streams, error)
}

// Streams are the client's side of a conversation. In may be nil. With a
// terminal everything goes to Out.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// WaitResult is how a wait ended.
type WaitResult struct {
	ExitCode int
	Err      error // the container could not be removed, or died in starting
}

// CommitOptions is an image to be made of a container.
type CommitOptions struct {
	Repo, Tag string
	Author    string
	Comment   string
	Pause     bool
	Changes   []string
	Config    *container.Config
}

// PutOptions is how to unpack an archive into a container.
type PutOptions struct {
	NoOverwriteDirNonDir bool
	CopyUIDGID           bool
}
