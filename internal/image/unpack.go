package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// downloads is how many layers of an image are fetched at a time.
const downloads = 3

// watcher is told how the layers of an image come along. Any field may be nil.
type watcher struct {
	extract func(layer ocispec.Descriptor, n int64) // n compressed bytes are unpacked
	ready   func(chainID string)                    // a layer and all below it are there
}

// unpack makes snapshots of v's layers. fetch is called for every layer, and
// may find it in the store already. The caller's context has a lease.
func (s *Service) unpack(ctx context.Context, v variant, fetch images.HandlerFunc, w watcher) error {
	sn := watchedSnapshots{s.snap, w.ready}
	u, err := unpack.NewUnpacker(ctx, s.content,
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform: platforms.All, SnapshotterKey: s.storage.name, Snapshotter: sn,
			Applier: applier{s.content}, ApplyOpts: []diff.ApplyOpt{w.progress},
		}),
		unpack.WithLimiter(semaphore.NewWeighted(downloads)),
		unpack.WithDuplicationSuppressor(&s.blobs),
		unpack.WithFetchAllContent())
	if err != nil {
		return err
	}
	handler := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if d.Digest == v.desc.Digest {
			return append([]ocispec.Descriptor{v.manifest.Config}, v.manifest.Layers...), nil
		}
		if images.IsLayerType(d.MediaType) {
			return fetch(ctx, d)
		}
		return nil, nil
	})
	derr := images.Dispatch(ctx, u.Unpack(handler), nil, v.desc)
	if _, err := u.Wait(); err != nil {
		return err
	}
	return derr
}

func (w watcher) progress(_ context.Context, d ocispec.Descriptor, c *diff.ApplyConfig) error {
	if w.extract != nil {
		c.Progress = func(n int64) { w.extract(d, n) }
	}
	return nil
}

// unpackImage makes the snapshots of an image whose content is in the store.
func (s *Service) unpackImage(ctx context.Context, img Image) error {
	v, err := s.variant(ctx, img.Manifest)
	if err != nil {
		return err
	}
	return s.unpackLocal(ctx, v)
}

func (s *Service) unpackLocal(ctx context.Context, v variant) (err error) {
	if len(v.manifest.Layers) == 0 {
		return nil
	}
	ctx, release, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := release(); err == nil {
			err = rerr
		}
	}()
	return s.unpack(ctx, v, s.present, watcher{})
}

// present is a "fetch" of what must be in the store.
func (s *Service) present(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if _, err := s.content.Info(ctx, d.Digest); err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return nil, nil
}

// watchedSnapshots says when a layer is finished.
type watchedSnapshots struct {
	snapshots.Snapshotter
	ready func(chainID string)
}

func (w watchedSnapshots) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	err := w.Snapshotter.Commit(ctx, name, key, opts...)
	if err == nil && w.ready != nil {
		w.ready(name)
	}
	return err
}
