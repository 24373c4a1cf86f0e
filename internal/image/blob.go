package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// refLabel is the label on a piece of content by which it keeps another.
const refLabel = "containerd.io/gc.ref.content."

// putBytes writes b to the content store. refs become its labels.
func (s *Service) putBytes(ctx context.Context, mediaType string, b []byte, refs map[string]string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	err := content.WriteBlob(ctx, s.content, "put-"+d.Digest.String(), bytes.NewReader(b), d, content.WithLabels(refs))
	if err != nil {
		return d, fmt.Errorf("image content %s: %w", d.Digest, err)
	}
	return d, s.label(ctx, d.Digest, refs)
}

// label adds labels to content that is there already.
func (s *Service) label(ctx context.Context, d digest.Digest, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	var paths []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		paths = append(paths, "labels."+k)
	}
	_, err := s.content.Update(ctx, content.Info{Digest: d, Labels: labels}, paths...)
	if err != nil {
		return fmt.Errorf("image content %s: label: %w", d, err)
	}
	return nil
}

// manifestRefs are the labels of a manifest.
func manifestRefs(m ocispec.Manifest) map[string]string {
	refs := map[string]string{refLabel + "config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		refs[fmt.Sprintf("%sl.%d", refLabel, i)] = l.Digest.String()
	}
	return refs
}

// indexRefs are the labels of an index.
func indexRefs(idx ocispec.Index) map[string]string {
	refs := map[string]string{}
	for i, m := range idx.Manifests {
		refs[fmt.Sprintf("%sm.%d", refLabel, i)] = m.Digest.String()
	}
	return refs
}

func (s *Service) has(ctx context.Context, d digest.Digest) bool {
	_, err := s.content.Info(ctx, d)
	return err == nil
}

// complete reports whether every blob of v is in the store.
func (s *Service) complete(ctx context.Context, v variant) bool {
	return !slices.ContainsFunc(v.manifest.Layers, func(l ocispec.Descriptor) bool { return !s.has(ctx, l.Digest) })
}

// setName makes name mean target. What it meant before keeps being there
// without a name, as an image that "image prune" finds.
func (s *Service) setName(ctx context.Context, name string, target ocispec.Descriptor, labels map[string]string) error {
	if err := s.settle(ctx, target.Digest); err != nil {
		return fmt.Errorf("image name %s: %w", familiar(name), err)
	}
	s.names.Lock()
	defer s.names.Unlock()
	target.Annotations, target.URLs, target.Data = nil, nil, nil
	img := images.Image{Name: name, Target: target, Labels: labels}
	old, err := s.images.Get(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = s.images.Create(ctx, img)
	case err == nil:
		if old.Target.Digest != target.Digest {
			err = s.keepDangling(ctx, old)
		}
		if err == nil {
			_, err = s.images.Update(ctx, img)
		}
	}
	if err != nil {
		return fmt.Errorf("image name %s: %w", familiar(name), err)
	}
	return s.dropDangling(ctx, target.Digest)
}

// keepDangling gives an image that loses old.Name a nameless record when that
// was its last name. The caller holds names.
func (s *Service) keepDangling(ctx context.Context, old images.Image) error {
	same, err := s.byTarget(ctx, old.Target.Digest)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(same, func(i images.Image) bool { return i.Name != old.Name }) {
		return nil
	}
	_, err = s.images.Create(ctx, images.Image{Name: danglingName(old.Target.Digest), Target: old.Target})
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// dropDangling removes the nameless record of an image that has a name now.
// The caller holds names.
func (s *Service) dropDangling(ctx context.Context, d digest.Digest) error {
	same, err := s.byTarget(ctx, d)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(same, func(i images.Image) bool { return !isDangling(i.Name) }) {
		return nil
	}
	if err := s.images.Delete(ctx, danglingName(d)); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

func (s *Service) byTarget(ctx context.Context, d digest.Digest) ([]images.Image, error) {
	return s.images.List(ctx, "target.digest=="+d.String())
}

// settle puts what belongs to a new image on the disk before the image has a
// name: after a power cut there may be no image, but never half of one.
func (s *Service) settle(ctx context.Context, target digest.Digest) error {
	known, err := s.images.List(ctx, "target.digest=="+target.String())
	if err != nil || len(known) > 0 {
		return err
	}
	dir, err := os.Open(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("write to disk: %w", err)
	}
	return nil
}
