// Package image keeps images and the writable layers of containers through
// containerd's packages, in this process: content store, metadata in bbolt,
// snapshotter, resolver, unpacker, archives. No containerd daemon is involved
// and no other package of Isle knows of containerd's types.
//
//	<data>/image/content        blobs: manifests, configurations, layers as they travel
//	<data>/image/metadata.db    names, labels, leases; what refers to what
//	<data>/image/snapshots      unpacked layers
//	<data>/rootfs/<container>   writable layers; see rootfs.go
//
// An image's id is the digest of what its name leads to: the index, or the
// manifest where there is none. It is found by its manifests' and
// configurations' digests, too.
//
// Traps: everything new is made under a lease and collected unless something
// refers to it when the lease ends, so a failure needs no cleaning up of its
// own. The collector goes on without a part of it that fails: see collect.go.
// What comes from a registry or an archive is hostile: see limits.go.
package image

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/filters"
)

// Builtin is the image that needs no registry.
const Builtin = "isle/toolbox"

// Image is an image chosen for one platform.
type Image struct {
	ID       string // "sha256:…", what Docker shows as the image's id
	Name     string // a name that it goes by, as people write it ("debian:12"); may be empty
	Manifest ocispec.Descriptor
	Config   dockerspec.DockerOCIImage
	ChainID  digest.Digest // of its layers; the writable layer's parent
	Platform ocispec.Platform
}

// PullOptions is how to pull.
type PullOptions struct {
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	All      bool // all tags of the repository
	Progress func(jsonstream.Message)
}

// PushOptions is how to push.
type PushOptions struct {
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	All      bool
	Progress func(jsonstream.Message)
}

// LoadOptions is how to load an archive.
type LoadOptions struct {
	Platforms []ocispec.Platform
	Quiet     bool
	Progress  func(jsonstream.Message)
	Loaded    func(id string) // told of every image; may be nil
}

// ImportOptions is how to make an image of a root file system.
type ImportOptions struct {
	Ref      string // name to give; may be empty
	Message  string
	Changes  []string // Dockerfile instructions
	Platform *ocispec.Platform
}

// CommitRequest is an image to be made of a container's layer.
type CommitRequest struct {
	ContainerID string
	Ref         string // name to give; may be empty
	Author      string
	Message     string
	Parent      Image
	Config      *container.Config // the new image's, already merged
}

// ListOptions is which images to list. Use counts containers by image id.
type ListOptions struct {
	All        bool
	Filters    filters.Args
	SharedSize bool
	Manifests  bool
	Use        Usage
}

// Usage says which containers (by id) use which image (by id).
type Usage map[string][]string

// InspectOptions is what inspect shows.
type InspectOptions struct {
	Platform  *ocispec.Platform
	Manifests bool
}

// RemoveOptions is how to remove. An image in Use by a container is refused
// with class Conflict (a running one even when forced).
type RemoveOptions struct {
	Force     bool
	NoPrune   bool
	Platforms []ocispec.Platform
	Use       Usage
	Running   Usage
}

// Change is one difference between a layer and what lies below it.
type Change = container.FilesystemChange
