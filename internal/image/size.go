package image

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sizes adds up what images take, each thing once.
type sizes struct {
	s       *Service
	blobs   map[digest.Digest]bool // counted already
	chains  map[digest.Digest]bool // likewise; an uncompressed blob has the same digest as its chain
	content int64
	plain   int64
}

func (s *Service) newSizes() *sizes {
	return &sizes{s: s, blobs: map[digest.Digest]bool{}, chains: map[digest.Digest]bool{}}
}

func (z *sizes) total() int64 { return z.content + z.plain }

// blob adds content that is in the store.
func (z *sizes) blob(ctx context.Context, d digest.Digest) {
	if z.blobs[d] {
		return
	}
	info, err := z.s.content.Info(ctx, d)
	if err != nil {
		return
	}
	z.blobs[d] = true
	z.content += info.Size
}

// variant adds one platform of an image.
func (z *sizes) variant(ctx context.Context, v variant) error {
	z.blob(ctx, v.desc.Digest)
	z.blob(ctx, v.manifest.Config.Digest)
	for _, l := range v.manifest.Layers {
		z.blob(ctx, l.Digest)
	}
	return z.chain(ctx, v.chainID())
}

// chain adds unpacked layers.
func (z *sizes) chain(ctx context.Context, chain digest.Digest) error {
	for name := chain; name != ""; {
		if z.chains[name] {
			return nil
		}
		info, err := z.s.snap.Stat(ctx, name.String())
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		u, err := z.s.snap.Usage(ctx, name.String())
		if err != nil {
			return err
		}
		z.chains[name] = true
		z.plain += u.Size
		name = digest.Digest(info.Parent)
	}
	return nil
}

// image adds all of an image that is here.
func (z *sizes) image(ctx context.Context, target ocispec.Descriptor, vs []variant) error {
	z.blob(ctx, target.Digest)
	for _, v := range vs {
		if err := z.variant(ctx, v); err != nil {
			return err
		}
	}
	return nil
}
