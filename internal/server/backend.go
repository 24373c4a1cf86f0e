// Package server speaks HTTP: routes, version negotiation, hijacking, and the
// translation of error classes to statuses. One file per resource. Everything
// that is not HTTP is behind Backend.
package server

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/api"
	"isle/internal/cni"
	isle "isle/internal/container"
	"isle/internal/filters"
	"isle/internal/image"
)

// Backend is what the API needs of the engine. Every error carries a class of
// errdefs, which errors.go turns into a status.
type Backend interface {
	Containers
	Execs
	Archives
	Images
	Networks
	Volumes
	System
	Isle
}

// Containers are the verbs of a container's life. ref is a name, an id or a
// unique prefix of one.
type Containers interface {
	ContainerCreate(ctx context.Context, opts isle.CreateOptions) (container.CreateResponse, error)
	ContainerList(ctx context.Context, opts isle.ListOptions) ([]container.Summary, error)
	ContainerInspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	// ContainerStart returns an error of class NotModified (see errors.go)
	// when the container is running already; so do Stop and their like.
	ContainerStart(ctx context.Context, ref string) error
	ContainerStop(ctx context.Context, ref string, opts isle.StopOptions) error
	ContainerRestart(ctx context.Context, ref string, opts isle.StopOptions) error
	ContainerKill(ctx context.Context, ref, signal string) error
	ContainerPause(ctx context.Context, ref string) error
	ContainerUnpause(ctx context.Context, ref string) error
	// ContainerWait registers before it returns; the channel yields one result.
	ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan isle.WaitResult, error)
	ContainerRemove(ctx context.Context, ref string, opts isle.RemoveOptions) error
	ContainerRename(ctx context.Context, ref, name string) error
	ContainerUpdate(ctx context.Context, ref string, opts isle.UpdateOptions) (container.UpdateResponse, error)
	ContainerResize(ctx context.Context, ref string, height, width uint16) error
	ContainerAttach(ctx context.Context, ref string, opts isle.AttachOptions) error
	ContainerLogs(ctx context.Context, ref string, opts isle.LogsOptions) error
	// ContainerStats gives one sample, or one a second until ctx is done or
	// the container is gone. oneShot leaves out the wait for a first pair.
	ContainerStats(ctx context.Context, ref string, stream, oneShot bool, emit func(container.StatsResponse) error) error
	ContainerTop(ctx context.Context, ref string, psArgs string) (container.TopResponse, error)
	ContainersPrune(ctx context.Context, f filters.Args) (container.PruneReport, error)
	ContainerCommit(ctx context.Context, ref string, opts isle.CommitOptions) (imageID string, err error)
}

// Execs are exec sessions.
type Execs interface {
	ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error)
	ExecStart(ctx context.Context, id string, opts isle.ExecStartOptions) error
	ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint16) error
}

// Archives move files between a container and the client.
type Archives interface {
	ContainerStat(ctx context.Context, ref, path string) (container.PathStat, error)
	ContainerGet(ctx context.Context, ref, path string) (io.ReadCloser, container.PathStat, error)
	ContainerPut(ctx context.Context, ref, path string, tar io.Reader, opts isle.PutOptions) error
	ContainerExport(ctx context.Context, ref string, w io.Writer) error
	ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error)
}

// Images are images.
type Images interface {
	ImagePull(ctx context.Context, ref string, opts image.PullOptions) error
	ImagePush(ctx context.Context, ref string, opts image.PushOptions) error
	ImageLoad(ctx context.Context, r io.Reader, opts image.LoadOptions) error
	ImageSave(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	ImageImport(ctx context.Context, r io.Reader, opts image.ImportOptions) (id string, err error)
	ImageTag(ctx context.Context, src, dst string) error
	ImageList(ctx context.Context, opts image.ListOptions) ([]imagetypes.Summary, error)
	ImageInspect(ctx context.Context, ref string, opts image.InspectOptions) (imagetypes.InspectResponse, error)
	ImageHistory(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error)
	ImageRemove(ctx context.Context, ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error)
	ImagesPrune(ctx context.Context, f filters.Args) (imagetypes.PruneReport, error)
	Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error)
}

// Networks are networks.
type Networks interface {
	NetworkCreate(ctx context.Context, req networktypes.CreateRequest) (networktypes.CreateResponse, error)
	NetworkList(ctx context.Context, f filters.Args) ([]networktypes.Summary, error)
	NetworkInspect(ctx context.Context, ref string, verbose bool) (networktypes.Inspect, error)
	// NetworkOverlaps says, in words, what else on this host uses a network's addresses.
	NetworkOverlaps(ctx context.Context, id string) ([]string, error)
	// NetworkUplink says, in words, which interface of the host a network is on; "" for none.
	NetworkUplink(ctx context.Context, id string) (string, error)
	// NetworkResults is what plug-ins that make a network said of its containers, by the
	// containers' ids, in their own words.
	NetworkResults(ctx context.Context, id string) (map[string]json.RawMessage, error)
	// NetworkSpan says where in its cluster a network is; nil for one of this host.
	NetworkSpan(ctx context.Context, id string) (*api.NetworkSpan, error)
	NetworkRemove(ctx context.Context, ref string) error
	NetworksPrune(ctx context.Context, f filters.Args) (networktypes.PruneReport, error)
	NetworkConnect(ctx context.Context, ref string, req networktypes.ConnectRequest) error
	NetworkDisconnect(ctx context.Context, ref, container string, force bool) error
}

// Volumes are named volumes.
type Volumes interface {
	VolumeCreate(ctx context.Context, req volumetypes.CreateRequest) (volumetypes.Volume, error)
	VolumeList(ctx context.Context, f filters.Args) (volumetypes.ListResponse, error)
	VolumeInspect(ctx context.Context, name string) (volumetypes.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	VolumesPrune(ctx context.Context, f filters.Args) (volumetypes.PruneReport, error)
}

// Isle is what Docker's API does not have.
type Isle interface {
	ContainerPublish(ctx context.Context, ref string, req api.PublishRequest) (api.PortsResponse, error)
	ContainerUnpublish(ctx context.Context, ref string, req api.UnpublishRequest) (api.PortsResponse, error)
	NetworkNames(ctx context.Context, ref string) ([]api.DNSRecord, error)
	NetworkExposure(ctx context.Context) (api.Exposure, error)
	NetworkDoctor(ctx context.Context) (api.Diagnosis, error)
	// CNI carries out a command of a runtime. The answer is what its plugin prints; nil
	// is nothing.
	CNI(ctx context.Context, req cni.Request) ([]byte, error)
}

// System is the daemon as a whole.
type System interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	DiskUsage(ctx context.Context, objects []system.DiskUsageObject) (system.DiskUsage, error)
	Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error)
	// Events gives past events since a moment (none when it is zero) and a
	// channel of those that follow, which cancel closes. Nothing is filtered.
	Events(since time.Time) (past []events.Message, live <-chan events.Message, cancel func())
}
