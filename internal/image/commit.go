package image

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/ids"
)

// Commit makes an image of a container's layer on top of the container's
// image. It returns the image's id.
func (s *Service) Commit(ctx context.Context, req CommitRequest) (_ string, err error) {
	ctx = s.context(ctx)
	name, err := optionalName(req.Ref)
	if err != nil {
		return "", err
	}
	lctx, release, err := s.leased(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	parent, err := s.variant(lctx, req.Parent.Manifest)
	if err != nil {
		return "", fmt.Errorf("commit %s: image it was made of: %w", ids.Short(req.ContainerID), err)
	}
	layer, diffID, n, err := s.diffLayer(lctx, req.ContainerID)
	if err != nil {
		return "", fmt.Errorf("commit %s: %w", ids.Short(req.ContainerID), err)
	}
	now := time.Now().UTC()
	cfg := parent.config
	cfg.Created, cfg.Author = &now, req.Author
	if req.Config != nil {
		cfg.Config = imageConfig(req.Config)
	}
	history := ocispec.History{Created: &now, Author: req.Author, Comment: req.Message, EmptyLayer: n == 0}
	if req.Config != nil {
		history.CreatedBy = strings.Join(req.Config.Cmd, " ")
	}
	cfg.History = append(slices.Clone(cfg.History), history)
	below := ociLayers(parent.manifest.Layers)
	if n > 0 {
		cfg.RootFS.DiffIDs = append(slices.Clone(cfg.RootFS.DiffIDs), diffID)
		below = append(below, layer)
	}
	return s.publish(lctx, name, cfg, below)
}

// publish puts an image together and gives it a name, if it is to have one.
func (s *Service) publish(ctx context.Context, name string, cfg dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (string, error) {
	v, err := s.putImage(ctx, cfg, layers)
	if err != nil {
		return "", err
	}
	if name == "" {
		err = s.setNameless(ctx, v.desc)
	} else {
		err = s.setName(ctx, name, v.desc, nil)
	}
	return v.desc.Digest.String(), err
}

// setNameless keeps an image that has no name, unless it has one.
func (s *Service) setNameless(ctx context.Context, target ocispec.Descriptor) error {
	s.names.Lock()
	defer s.names.Unlock()
	return s.keepDangling(ctx, images.Image{Target: ocispec.Descriptor{
		MediaType: target.MediaType, Digest: target.Digest, Size: target.Size,
	}})
}

func optionalName(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	n, err := parseName(ref)
	if err != nil {
		return "", err
	}
	return n.String(), nil
}

// diffLayer writes a container's layer to the content store.
func (s *Service) diffLayer(ctx context.Context, id string) (d ocispec.Descriptor, diffID digest.Digest, n int, err error) {
	d, diffID, err = s.gzipLayer(ctx, "commit-"+id, func(w io.Writer) (err error) {
		n, err = s.writeDiff(ctx, id, w)
		return err
	})
	return d, diffID, n, err
}

// gzipLayer compresses what fill writes into the content store.
func (s *Service) gzipLayer(ctx context.Context, ref string, fill func(io.Writer) error) (d ocispec.Descriptor, diffID digest.Digest, err error) {
	sum := digest.Canonical.Digester()
	d, err = s.writeLayer(ctx, ref, ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
		zw := gzip.NewWriter(w)
		if err := fill(io.MultiWriter(zw, sum.Hash())); err != nil {
			return err
		}
		return zw.Close()
	})
	if err != nil {
		return d, "", err
	}
	return d, sum.Digest(), s.label(ctx, d.Digest, map[string]string{labels.LabelUncompressed: sum.Digest().String()})
}

// ociLayers are layers under the names that OCI manifests use for their types.
func ociLayers(in []ocispec.Descriptor) []ocispec.Descriptor {
	types := map[string]string{
		images.MediaTypeDockerSchema2Layer:     ocispec.MediaTypeImageLayer,
		images.MediaTypeDockerSchema2LayerGzip: ocispec.MediaTypeImageLayerGzip,
		images.MediaTypeDockerSchema2LayerZstd: ocispec.MediaTypeImageLayerZstd,
	}
	out := make([]ocispec.Descriptor, len(in))
	for i, l := range in {
		if t, ok := types[l.MediaType]; ok {
			l.MediaType = t
		}
		out[i] = l
	}
	return out
}

// imageConfig is what of a container's configuration an image keeps.
func imageConfig(c *container.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	out.Volumes, out.WorkingDir, out.Labels = c.Volumes, c.WorkingDir, c.Labels
	out.StopSignal = c.StopSignal
	//lint:ignore SA1019 Docker keeps it in what it commits.
	out.ArgsEscaped = c.ArgsEscaped
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	for p := range c.ExposedPorts {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[p.String()] = struct{}{}
	}
	return out
}
