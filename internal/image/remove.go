package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"isle/internal/filters"
	"isle/internal/ids"
)

// Remove takes a name from an image and, when that was the last one, or ref is
// an id, deletes the image.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	ctx = s.context(ctx)
	f, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(opts.Platforms) > 0 {
		return nil, fmt.Errorf("removing single platforms of an image is not supported: %w", errdefs.ErrNotImplemented)
	}
	id := f.target.Digest.String()
	if f.name != "" && len(named(f.names)) > 1 {
		return s.untag(ctx, []string{f.name})
	}
	if err := removable(ref, f, opts.Use[id], opts.Running[id], opts.Force); err != nil {
		return nil, err
	}
	return s.delete(ctx, f)
}

func named(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), isDangling)
}

// removable says in Docker's words why an image cannot be deleted.
func removable(ref string, f found, users, running []string, force bool) error {
	id := ids.Short(f.target.Digest.Encoded())
	conflict := func(format string, args ...any) error {
		return fmt.Errorf("conflict: "+format+": %w", append(args, errdefs.ErrConflict)...)
	}
	switch {
	case f.name == "" && len(repositories(f.names)) > 1 && !force,
		f.name == "" && len(named(f.names)) > 1 && !force:
		return conflict("unable to delete %s (must be forced) - image is referenced in multiple repositories", id)
	case len(running) > 0 && f.name != "":
		return conflict("unable to remove repository reference %q (cannot be forced) - container %s is using its referenced image %s", ref, ids.Short(running[0]), id)
	case len(running) > 0:
		return conflict("unable to delete %s (cannot be forced) - image is being used by running container %s", id, ids.Short(running[0]))
	case len(users) > 0 && !force && f.name != "":
		return conflict("unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, ids.Short(users[0]), id)
	case len(users) > 0 && !force:
		return conflict("unable to delete %s (must be forced) - image is being used by stopped container %s", id, ids.Short(users[0]))
	}
	return nil
}

func repositories(names []string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		if n, err := reference.ParseNormalizedNamed(name); err == nil {
			out[n.Name()] = true
		}
	}
	return out
}

// untag removes names only; the image has others.
func (s *Service) untag(ctx context.Context, names []string) ([]imagetypes.DeleteResponse, error) {
	s.names.Lock()
	defer s.names.Unlock()
	var out []imagetypes.DeleteResponse
	for _, n := range names {
		if err := s.images.Delete(ctx, n); err != nil {
			return out, fmt.Errorf("image %s: %w", familiar(n), err)
		}
		if !isDangling(n) {
			out = append(out, imagetypes.DeleteResponse{Untagged: familiar(n)})
		}
	}
	return out, nil
}

// delete removes an image with all its names, and what only it needed.
func (s *Service) delete(ctx context.Context, f found) ([]imagetypes.DeleteResponse, error) {
	out, err := s.untag(ctx, f.names)
	if err != nil {
		return out, err
	}
	return append(out, imagetypes.DeleteResponse{Deleted: f.target.Digest.String()}), s.gc(ctx)
}

// Prune deletes images that no container uses: those without a name or, with
// dangling=false, all.
func (s *Service) Prune(ctx context.Context, f filters.Args, use Usage) (imagetypes.PruneReport, error) {
	ctx = s.context(ctx)
	report := imagetypes.PruneReport{ImagesDeleted: []imagetypes.DeleteResponse{}}
	if err := f.Validate("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	danglingOnly, err := f.Bool("dangling", true)
	if err != nil {
		return report, err
	}
	until, err := untilTime(f)
	if err != nil {
		return report, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return report, err
	}
	before := s.storeSize(ctx)
	for _, e := range all {
		if len(use[e.id()]) > 0 || danglingOnly && !e.dangling() ||
			!until.IsZero() && !e.created().Before(until) || !f.Labels("label", e.labels()) {
			continue
		}
		gone, err := s.untag(ctx, e.names)
		report.ImagesDeleted = append(report.ImagesDeleted, gone...)
		if err != nil {
			return report, err
		}
		report.ImagesDeleted = append(report.ImagesDeleted, imagetypes.DeleteResponse{Deleted: e.id()})
	}
	if err := s.gc(ctx); err != nil {
		return report, err
	}
	report.SpaceReclaimed = uint64(max(0, before-s.storeSize(ctx)))
	return report, nil
}

// storeSize is the size of all content and unpacked layers that images hold,
// with what containers hold beside them.
func (s *Service) storeSize(ctx context.Context) int64 {
	z := s.newSizes()
	all, err := s.entries(ctx)
	if err != nil {
		return 0
	}
	for _, e := range all {
		if err := z.image(ctx, e.target, e.variants); err != nil {
			s.log.Warn("size of image", "image", e.id(), "error", err)
		}
	}
	containers, err := s.Rootfses(ctx)
	if err != nil {
		return z.total()
	}
	for _, id := range containers {
		if r, err := s.rootfs(id); err == nil {
			s.sizeOf(ctx, z, r)
		}
	}
	return z.total()
}

func (s *Service) sizeOf(ctx context.Context, z *sizes, r rootfsRecord) {
	if v, err := s.variant(ctx, r.Manifest); err == nil {
		_ = z.variant(ctx, v) // a size that cannot be read counts as nothing
		return
	}
	_ = z.chain(ctx, digest.Digest(r.ChainID))
}
