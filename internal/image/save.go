package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as an archive that is both "docker save"'s and an OCI
// layout. A repository without a tag means all its tags; what is asked for by
// id is saved without a name.
func (s *Service) Save(ctx context.Context, refs []string, want []ocispec.Platform, w io.Writer) (err error) {
	ctx = s.context(ctx)
	var opts []archive.ExportOpt
	var have []ocispec.Platform
	for _, ref := range refs {
		found, err := s.toSave(ctx, ref)
		if err != nil {
			return err
		}
		for _, f := range found {
			vs, err := s.saveable(ctx, ref, f, want)
			if err != nil {
				return err
			}
			for _, v := range vs {
				have = append(have, v.platform)
			}
			opts = append(opts, manifestOpts(f, vs, len(want) > 0)...)
		}
	}
	opts = append(opts, archive.WithPlatform(platforms.Ordered(have...)), archive.WithAllPlatforms(), archive.WithSkipMissing(s.content))
	if err := archive.Export(ctx, s.content, w, opts...); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// manifestOpts says what of an image goes into the archive: all of it, or the
// manifests of the wanted platforms.
func manifestOpts(f found, vs []variant, chosen bool) []archive.ExportOpt {
	var names []string
	if f.name != "" && !isDangling(f.name) {
		names = []string{f.name}
	}
	if !chosen {
		return []archive.ExportOpt{archive.WithManifest(f.target, names...)}
	}
	var opts []archive.ExportOpt
	for _, v := range vs {
		d := v.desc
		d.Platform = &v.platform
		opts = append(opts, archive.WithManifest(d, names...))
	}
	return opts
}

// toSave is what ref means: one image, or all tags of a repository.
func (s *Service) toSave(ctx context.Context, ref string) ([]found, error) {
	if err := s.EnsureBuiltin(ctx, ref); err != nil {
		return nil, err
	}
	n, err := reference.ParseNormalizedNamed(ref)
	if err == nil && reference.IsNameOnly(n) && !hexID.MatchString(ref) {
		all, err := s.images.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		var out []found
		for _, img := range all {
			if m, err := reference.ParseNormalizedNamed(img.Name); err == nil && m.Name() == n.Name() && tagged(img.Name) {
				out = append(out, found{target: img.Target, name: img.Name})
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	f, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	return []found{f}, nil
}

// saveable are the variants whose content is all there. Wanted ones must be.
func (s *Service) saveable(ctx context.Context, ref string, f found, want []ocispec.Platform) ([]variant, error) {
	all, err := s.variants(ctx, f.target)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	all = slices.DeleteFunc(all, func(v variant) bool { return !s.complete(ctx, v) })
	if err := provides(all, want); err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	if len(want) > 0 {
		all = slices.DeleteFunc(all, func(v variant) bool { return !platforms.Any(want...).Match(v.platform) })
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("image %s: its content is not in the store: %w", ref, errdefs.ErrNotFound)
	}
	return all, nil
}

// provides reports as an error which of the wanted platforms is not there.
func provides(have []variant, want []ocispec.Platform) error {
	for _, w := range want {
		m := platforms.OnlyStrict(platforms.Normalize(w))
		if !slices.ContainsFunc(have, func(v variant) bool { return m.Match(v.platform) }) {
			return fmt.Errorf("no suitable image for platform %s: %w", platforms.Format(w), errdefs.ErrNotFound)
		}
	}
	return nil
}
