// Package engine has the verbs of the product, one file each. It orders image,
// runtime, network and volume, and owns no kernel state.
//
// This file says what the engine asks of the others.
package engine

import (
	"context"
	"io"
	"net/netip"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/filters"
	"isle/internal/image"
	"isle/internal/network"
	"isle/internal/network/ipam"
	"isle/internal/network/publish"
	"isle/internal/runtime"
	"isle/internal/volume"
)

// Images is package image's Service.
type Images interface {
	// Resolve finds the image a user means by name, id or id prefix. Class
	// NotFound with Docker's text "No such image: REF" when there is none.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (image.Image, error)
	// EnsureBuiltin assembles isle/toolbox when ref names it and it is not there.
	EnsureBuiltin(ctx context.Context, ref string) error

	// PrepareRootfs makes the writable layer of a container on top of an image
	// and protects both from removal. Idempotent.
	PrepareRootfs(ctx context.Context, containerID string, img image.Image) error
	// RootfsMounts are the mounts of an existing writable layer.
	RootfsMounts(ctx context.Context, containerID string) ([]runtime.Mount, error)
	// RemoveRootfs drops the layer. A missing one is no error.
	RemoveRootfs(ctx context.Context, containerID string) error
	// RootfsUsage is the size of the writable layer and of all below it, in bytes.
	RootfsUsage(ctx context.Context, containerID string) (rw, total int64, err error)
	// Rootfses are the containers that have a layer: for cleaning up at start.
	Rootfses(ctx context.Context) ([]string, error)
	// Changes lists what differs between the layer and its image.
	Changes(ctx context.Context, containerID string) ([]image.Change, error)
	// Commit makes an image of the layer. It returns the image's id.
	Commit(ctx context.Context, req image.CommitRequest) (string, error)

	Pull(ctx context.Context, ref string, opts image.PullOptions) error
	Push(ctx context.Context, ref string, opts image.PushOptions) error
	Load(ctx context.Context, r io.Reader, opts image.LoadOptions) error
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	Import(ctx context.Context, r io.Reader, opts image.ImportOptions) (string, error)
	Tag(ctx context.Context, src, dst string) error
	List(ctx context.Context, opts image.ListOptions) ([]imagetypes.Summary, error)
	Inspect(ctx context.Context, ref string, opts image.InspectOptions) (imagetypes.InspectResponse, error)
	History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error)
	Remove(ctx context.Context, ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error)
	Prune(ctx context.Context, f filters.Args, use image.Usage) (imagetypes.PruneReport, error)
	Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error)
	// TotalSize is what all images take together, each layer counted once.
	TotalSize(ctx context.Context) (int64, error)
	// Driver is the snapshotter's name, for "info", and Warnings why it is not the wanted one.
	Driver() (name string, warnings []string)
}

// Progress receives what a person sees while an image moves. It is not called
// concurrently.
type Progress = func(jsonstream.Message)

// Runtime is package runtime's Client.
type Runtime interface {
	// Filter lets s use a system call filter that was compiled before; the key
	// goes into Create.
	Filter(r runtime.Runtime, s *specs.Spec) (key string)
	// Create sets up the container and leaves its process waiting for Start.
	Create(ctx context.Context, req runtime.Create) (pid int, err error)
	Start(ctx context.Context, id string) error
	// Exec starts a process in a running container.
	Exec(ctx context.Context, p runtime.Proc, process *specs.Process, io runtime.Stdio) (pid int, err error)
	// Kill signals the process; all: every process of the container.
	Kill(ctx context.Context, p runtime.Proc, signal int, all bool) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Update(ctx context.Context, id string, res *specs.LinuxResources) error
	// Delete kills what is left of the container and forgets it. Idempotent.
	Delete(ctx context.Context, id string) error
	Resize(ctx context.Context, p runtime.Proc, height, width uint16) error
	// Attach joins a process's stdio until it ends, ctx is done, or in (when
	// given) yields the detach keys: then the error is runtime.ErrDetached.
	// Output begins with what is written after ready was called.
	Attach(ctx context.Context, p runtime.Proc, a runtime.Attach) error
	// Pids are all processes of a container, as the host numbers them.
	Pids(ctx context.Context, id string) ([]int, error)
	// List is all the shim has: for restore.
	List(ctx context.Context) ([]runtime.Status, error)
	// Exits delivers every exit, also those from before isled started, until
	// Ack is called for it. The channel is closed when ctx is done.
	Exits(ctx context.Context) <-chan runtime.Exit
	// Ack lets the shim forget an exit.
	Ack(ctx context.Context, p runtime.Proc) error
	// Find returns the OCI runtime of that name, "" being the default.
	Find(name string) (runtime.Runtime, error)
	// Names are the runtimes that can be asked for.
	Names() map[string]runtime.Runtime
}

// Networks is package network's Manager.
type Networks interface {
	// DriverNames are what the driver of a new network may be, sorted.
	DriverNames() []string
	// KnowsDriver reports whether there may be a driver of that name.
	KnowsDriver(name string) bool
	Create(ctx context.Context, req networktypes.CreateRequest) (network.Network, error)
	Remove(ctx context.Context, ref string) (network.Network, error)
	// Find takes a name, an id or a unique prefix of one. Class NotFound with
	// Docker's text "network REF not found".
	Find(ctx context.Context, ref string) (network.Network, error)
	List(ctx context.Context) ([]network.Network, error)
	Endpoints(ctx context.Context) ([]network.Endpoint, error)
	// Usage counts the addresses of a network by subnet.
	Usage(ctx context.Context, networkID string) (map[netip.Prefix]ipam.Usage, error)
	// Overlaps are what others on this host use of networks' addresses, by id.
	Overlaps(ctx context.Context) (map[string][]ipam.Foreign, error)

	// Span says where in its cluster a network is; zero for one of this host.
	Span(ctx context.Context, ref string) (network.Span, error)
	// Uplink says what a network is on, in words; "" when it is on nothing.
	Uplink(ctx context.Context, networkID string) (string, error)

	// Open makes a sandbox and connects it, all or nothing.
	Open(ctx context.Context, req network.OpenRequest) (network.Opened, error)
	// Reopen is Open for a sandbox that is open: what is as it should be stays.
	Reopen(ctx context.Context, req network.OpenRequest) (network.Opened, error)
	// Close removes a sandbox and its endpoints. A missing one is no error.
	// It returns when the records are gone and the host's side is down; the
	// kernel reaps the namespace behind it.
	Close(ctx context.Context, sandboxID string) error
	// Connect and Disconnect change a sandbox that is open.
	Connect(ctx context.Context, sandboxID string, req network.ConnectRequest) (network.Endpoint, error)
	Disconnect(ctx context.Context, sandboxID, networkID string) error
	// SeatsOf are the places of a sandbox, also those that wait for a cluster.
	SeatsOf(sandboxID string) []network.Seat
	// Publish, Replace, Unpublish and SetPorts change the ports of a sandbox that
	// is open: see the Manager. They are idempotent, and leave all as it was when
	// they fail.
	Publish(ctx context.Context, sandboxID string, want network.PortRequest) (network.Ports, error)
	Replace(ctx context.Context, sandboxID string, want network.PortRequest) (network.Ports, error)
	Unpublish(ctx context.Context, sandboxID string, which []publish.Selector) (network.Ports, error)
	SetPorts(ctx context.Context, sandboxID string, want network.PortRequest) (network.Ports, error)
	// Published are a sandbox's ports, and how "inspect" shows those that lead
	// somewhere. Class NotFound when it is not open.
	Published(sandboxID string) ([]network.Publish, networktypes.PortMap, error)
	// PortWarnings are for who publishes ports of a container that is to be on networks.
	PortWarnings(networks []string) []string
	// Rename changes a container's names in DNS.
	Rename(ctx context.Context, sandboxID, from, to string) error
	// Path is where the namespace of an open sandbox is; "" for the host's.
	Path(sandboxID string) (string, error)
	// Sandboxes are the containers that have one: for cleaning up at start.
	Sandboxes(ctx context.Context) ([]string, error)
	// Counters reads an endpoint's interfaces by their names inside.
	Counters(ctx context.Context, sandboxID string) (map[string]network.Counters, error)
}

// Volumes is package volume's Service.
type Volumes interface {
	Create(ctx context.Context, req volumetypes.CreateRequest) (volumetypes.Volume, error)
	Find(ctx context.Context, name string) (volumetypes.Volume, error)
	List(ctx context.Context) ([]volumetypes.Volume, error)
	// Remove deletes the data. The caller has checked that nothing uses it.
	Remove(ctx context.Context, name string, force bool) error
	// Mount makes the volume's files available at the returned path, for user.
	Mount(ctx context.Context, name, user string) (path string, err error)
	Unmount(ctx context.Context, name, user string) error
	// Fill copies the image's files at dir in the root file system into an
	// empty volume, with owners and modes (Docker's copy-up).
	Fill(ctx context.Context, name string, rootfs []runtime.Mount, dir string) error
	Usage(ctx context.Context, name string) (bytes int64, err error)
}

var _ = volume.Anonymous
