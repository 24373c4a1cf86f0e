package servertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/api"
	"isle/internal/filters"
	"isle/internal/image"
)

// ImageID is the id of every image.
var ImageID = "sha256:" + strings.Repeat("a", 64)

func noImage(ref string) error { return fmt.Errorf("No such image: %s: %w", ref, errdefs.ErrNotFound) }

func (b *Backend) hasImage(ref string) bool {
	return slices.Contains(b.images, ref) || slices.Contains(b.images, ref+":latest")
}

// ImagePull fails for "absent" before it has begun and for "broken" after.
func (b *Backend) ImagePull(_ context.Context, ref string, o image.PullOptions) error {
	b.keep(o)
	if strings.Contains(ref, "absent") {
		return fmt.Errorf("pull access denied for %s: %w", ref, errdefs.ErrNotFound)
	}
	o.Progress(jsonstream.Message{Status: "Pulling from " + ref})
	if strings.Contains(ref, "broken") {
		return errors.New("layer sha256:1: unexpected digest")
	}
	o.Progress(jsonstream.Message{Status: "Status: Downloaded newer image for " + ref})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.images = append(b.images, strings.TrimPrefix(ref, "docker.io/library/"))
	return nil
}

func (b *Backend) ImagePush(_ context.Context, ref string, o image.PushOptions) error {
	b.keep(o)
	o.Progress(jsonstream.Message{Status: "Pushed " + ref})
	return nil
}

func (b *Backend) ImageLoad(_ context.Context, r io.Reader, o image.LoadOptions) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil {
		b.keep(o)
		o.Progress(jsonstream.Message{Stream: fmt.Sprintf("Loaded image: of %d bytes\n", n)})
	}
	return err
}

func (b *Backend) ImageSave(_ context.Context, refs []string, p []ocispec.Platform, w io.Writer) error {
	b.keep(p)
	for _, ref := range refs {
		if !b.hasImage(ref) {
			return noImage(ref)
		}
	}
	_, err := w.Write(Tar("manifest.json", strings.Join(refs, " ")))
	return err
}

func (b *Backend) ImageImport(_ context.Context, r io.Reader, o image.ImportOptions) (string, error) {
	b.keep(o)
	_, err := io.Copy(io.Discard, r)
	return ImageID, err
}

func (b *Backend) ImageTag(_ context.Context, src, dst string) error {
	if !b.hasImage(src) {
		return noImage(src)
	}
	b.keep(src + " → " + dst)
	return nil
}

func (b *Backend) ImageList(_ context.Context, o image.ListOptions) ([]imagetypes.Summary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Last = o
	var all []imagetypes.Summary
	for _, ref := range b.images {
		all = append(all, imagetypes.Summary{ID: ImageID, RepoTags: []string{ref}, Size: 1 << 20, SharedSize: -1, Created: 1700000000, Containers: 1})
	}
	return all, nil
}

func (b *Backend) ImageInspect(_ context.Context, ref string, o image.InspectOptions) (imagetypes.InspectResponse, error) {
	b.keep(o)
	if !b.hasImage(ref) {
		return imagetypes.InspectResponse{}, noImage(ref)
	}
	return imagetypes.InspectResponse{
		ID: ImageID, RepoTags: []string{ref}, Os: "linux", Architecture: "amd64", Size: 1 << 20,
		Config:     &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}}},
		Descriptor: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex},
		RootFS:     imagetypes.RootFS{Type: "layers"},
	}, nil
}

func (b *Backend) ImageHistory(_ context.Context, ref string, p *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	b.keep(p)
	if !b.hasImage(ref) {
		return nil, noImage(ref)
	}
	return []imagetypes.HistoryResponseItem{{ID: ImageID, CreatedBy: "sh"}}, nil
}

func (b *Backend) ImageRemove(_ context.Context, ref string, o image.RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	b.keep(o)
	if !b.hasImage(ref) {
		return nil, noImage(ref)
	}
	return []imagetypes.DeleteResponse{{Untagged: ref}}, nil
}

func (b *Backend) ImagesPrune(_ context.Context, f filters.Args) (imagetypes.PruneReport, error) {
	b.keep(f)
	return imagetypes.PruneReport{}, nil
}

func (b *Backend) Distribution(_ context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	b.keep(auth)
	return registry.DistributionInspect{Descriptor: ocispec.Descriptor{MediaType: ref}}, nil
}

// Network is the only network.
var Network = network.Network{
	Name: "bridge", ID: strings.Repeat("b", 64), Driver: "bridge", Scope: "local", EnableIPv4: true, Created: time.Unix(1700000000, 0).UTC(),
	IPAM: network.IPAM{Driver: "default"}, Options: map[string]string{}, Labels: map[string]string{},
}

func (b *Backend) NetworkCreate(_ context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	b.keep(req)
	if req.Name == Network.Name {
		return network.CreateResponse{}, fmt.Errorf("network with name %s already exists: %w", req.Name, errdefs.ErrConflict)
	}
	return network.CreateResponse{ID: strings.Repeat("d", 64)}, nil
}

func (b *Backend) NetworkList(_ context.Context, f filters.Args) ([]network.Summary, error) {
	b.keep(f)
	return []network.Summary{{Network: Network}}, nil
}

func (b *Backend) NetworkInspect(_ context.Context, ref string, _ bool) (network.Inspect, error) {
	if ref != Network.Name && !strings.HasPrefix(Network.ID, ref) {
		return network.Inspect{}, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	}
	return network.Inspect{Network: Network}, nil
}

// NetworkOverlaps implements server.Backend.
func (b *Backend) NetworkOverlaps(context.Context, string) ([]string, error) { return nil, nil }

// NetworkSpan implements server.Backend.
func (b *Backend) NetworkSpan(context.Context, string) (*api.NetworkSpan, error) { return nil, nil }

// NetworkResults implements server.Backend.
func (b *Backend) NetworkResults(context.Context, string) (map[string]json.RawMessage, error) {
	return nil, nil
}

// NetworkUplink implements server.Backend.
func (b *Backend) NetworkUplink(context.Context, string) (string, error) { return "", nil }

func (b *Backend) NetworkRemove(ctx context.Context, ref string) error {
	_, err := b.NetworkInspect(ctx, ref, false)
	return err
}

func (b *Backend) NetworksPrune(_ context.Context, f filters.Args) (network.PruneReport, error) {
	b.keep(f)
	return network.PruneReport{}, nil
}

func (b *Backend) NetworkConnect(_ context.Context, _ string, req network.ConnectRequest) error {
	b.keep(req)
	return nil
}

func (b *Backend) NetworkDisconnect(_ context.Context, _, ref string, force bool) error {
	b.keep(fmt.Sprint(ref, " ", force))
	return nil
}

func (b *Backend) VolumeCreate(_ context.Context, req volumetypes.CreateRequest) (volumetypes.Volume, error) {
	b.keep(req)
	return volumetypes.Volume{Name: req.Name, Driver: "local", Scope: "local"}, nil
}

func (b *Backend) VolumeList(_ context.Context, f filters.Args) (volumetypes.ListResponse, error) {
	b.keep(f)
	return volumetypes.ListResponse{}, nil
}

func (b *Backend) VolumeInspect(_ context.Context, name string) (volumetypes.Volume, error) {
	if name == "missing" {
		return volumetypes.Volume{}, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	}
	return volumetypes.Volume{Name: name}, nil
}

func (b *Backend) VolumeRemove(_ context.Context, name string, force bool) error {
	b.keep(force)
	if name == "used" {
		return fmt.Errorf("remove %s: volume is in use - [abc]: %w", name, errdefs.ErrConflict)
	}
	return nil
}

func (b *Backend) VolumesPrune(_ context.Context, f filters.Args) (volumetypes.PruneReport, error) {
	b.keep(f)
	return volumetypes.PruneReport{}, nil
}

func (b *Backend) Info(context.Context) (system.Info, error) {
	return system.Info{
		ID: "fake", ServerVersion: "0.1", OSType: "linux", Architecture: "x86_64", CgroupVersion: "1", NCPU: 2,
		SecurityOptions: []string{"name=seccomp,profile=builtin"}, Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		RegistryConfig: &registry.ServiceConfig{}, RuncCommit: system.Commit{ID: "v1"},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"}, Containerd: &system.ContainerdInfo{},
		Runtimes: map[string]system.RuntimeWithStatus{"crun": {Runtime: system.Runtime{Path: "crun"}, Status: map[string]string{"k": "v"}}},
	}, nil
}

func (b *Backend) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{
		Version: "0.1", Os: "linux", Arch: "amd64", Platform: system.PlatformInfo{Name: "Isle"},
		Components: []system.ComponentVersion{{Name: "Engine", Version: "0.1"}},
	}, nil
}

func (b *Backend) DiskUsage(_ context.Context, objects []system.DiskUsageObject) (u system.DiskUsage, err error) {
	b.keep(objects)
	if slices.Contains(objects, system.ImageObject) {
		u.ImageUsage = &imagetypes.DiskUsage{TotalCount: 1, TotalSize: 7, Items: []imagetypes.Summary{{ID: ImageID, Size: 7, Containers: 2}}}
	}
	if slices.Contains(objects, system.ContainerObject) {
		u.ContainerUsage = &container.DiskUsage{TotalCount: 1, Items: []container.Summary{{ID: "c"}}}
	}
	if slices.Contains(objects, system.VolumeObject) {
		u.VolumeUsage = &volumetypes.DiskUsage{}
	}
	if slices.Contains(objects, system.BuildCacheObject) {
		u.BuildCacheUsage = &build.DiskUsage{}
	}
	return u, nil
}

func (b *Backend) Login(_ context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	b.keep(a)
	if a.Password != "right" {
		return registry.AuthResponse{}, fmt.Errorf("incorrect username or password: %w", errdefs.ErrUnauthenticated)
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}

func (b *Backend) Events(since time.Time) ([]events.Message, <-chan events.Message, func()) {
	return b.Bus.Subscribe(since)
}
