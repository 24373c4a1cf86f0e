package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/filters"
)

// entry is an image as lists see it.
type entry struct {
	target   ocispec.Descriptor
	names    []string
	variants []variant // the host's platform first
	tagged   time.Time // when it last got a name
}

func (e entry) id() string { return e.target.Digest.String() }

func (e entry) created() time.Time {
	if len(e.variants) > 0 && e.variants[0].config.Created != nil {
		return *e.variants[0].config.Created
	}
	return time.Time{}
}

func (e entry) labels() map[string]string {
	if len(e.variants) > 0 {
		return e.variants[0].config.Config.Labels
	}
	return nil
}

func (e entry) dangling() bool { return len(named(e.names)) == 0 }

func (e entry) repoTags() []string {
	out := []string{}
	for _, n := range e.names {
		if tagged(n) {
			out = append(out, familiar(n))
		}
	}
	return out
}

func (e entry) repoDigests() []string {
	out := []string{}
	for _, n := range e.names {
		if d := repoDigest(n, e.target.Digest); !isDangling(n) && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// entries are all images, newest first. One whose content cannot be read is
// listed without its variants rather than hiding all others.
func (s *Service) entries(ctx context.Context) ([]entry, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []entry
	for _, group := range targets(all, func(images.Image) bool { return true }) {
		out = append(out, s.entry(ctx, group))
	}
	slices.SortFunc(out, func(a, b entry) int {
		return cmp.Or(b.created().Compare(a.created()), cmp.Compare(a.id(), b.id()))
	})
	return out, nil
}

func (s *Service) entry(ctx context.Context, group []images.Image) entry {
	e := entry{target: group[0].Target, names: namesOf(group)}
	for _, img := range group {
		if img.UpdatedAt.After(e.tagged) {
			e.tagged = img.UpdatedAt
		}
	}
	vs, err := s.variants(ctx, e.target)
	if err != nil {
		s.log.Warn("image cannot be read", "image", e.id(), "error", err)
	}
	host := matcher(nil)
	slices.SortStableFunc(vs, func(a, b variant) int {
		switch {
		case host.Less(a.platform, b.platform):
			return -1
		case host.Less(b.platform, a.platform):
			return 1
		}
		return 0
	})
	e.variants = vs
	return e
}

// List lists images.
func (s *Service) List(ctx context.Context, opts ListOptions) ([]imagetypes.Summary, error) {
	ctx = s.context(ctx)
	keep, err := s.listFilter(ctx, opts.Filters)
	if err != nil {
		return nil, err
	}
	all, err := s.entries(ctx)
	if err != nil {
		return nil, err
	}
	users := s.chainUsers(all)
	out := []imagetypes.Summary{}
	for _, e := range all {
		if !keep(e) {
			continue
		}
		sum, err := s.summary(ctx, e, opts)
		if err != nil {
			return nil, err
		}
		if opts.SharedSize {
			sum.SharedSize = s.sharedSize(ctx, e, users)
		}
		onlyReferences(&sum, opts.Filters)
		out = append(out, sum)
	}
	return out, nil
}

func (s *Service) summary(ctx context.Context, e entry, opts ListOptions) (imagetypes.Summary, error) {
	z := s.newSizes()
	if err := z.image(ctx, e.target, e.variants); err != nil {
		return imagetypes.Summary{}, fmt.Errorf("image %s: %w", e.id(), err)
	}
	sum := imagetypes.Summary{
		ID: e.id(), RepoTags: e.repoTags(), RepoDigests: e.repoDigests(), Labels: e.labels(),
		Created: max(0, e.created().Unix()), Size: z.total(), SharedSize: -1,
		Containers: int64(len(opts.Use[e.id()])), Descriptor: &e.target,
	}
	if opts.Manifests {
		var err error
		if sum.Manifests, err = s.manifestSummaries(ctx, e.target, opts.Use[e.id()]); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// onlyReferences leaves the names that were asked for. The digest of a tag that
// stays does too; that of another repository would be shown as an untagged image.
func onlyReferences(sum *imagetypes.Summary, f filters.Args) {
	sum.RepoTags = slices.DeleteFunc(sum.RepoTags, func(t string) bool { return !matchesReference(f, t) })
	sum.RepoDigests = slices.DeleteFunc(sum.RepoDigests, func(d string) bool {
		repo, _, _ := strings.Cut(d, "@")
		tagged := slices.ContainsFunc(sum.RepoTags, func(t string) bool { return strings.HasPrefix(t, repo+":") })
		return !tagged && !matchesReference(f, d)
	})
}

// chainUsers counts the images that stand on each unpacked layer.
func (s *Service) chainUsers(all []entry) map[digest.Digest]int {
	users := map[digest.Digest]int{}
	for _, e := range all {
		mine := map[digest.Digest]bool{}
		for _, v := range e.variants {
			for _, c := range chainsOf(v) {
				mine[c] = true
			}
		}
		for c := range mine {
			users[c]++
		}
	}
	return users
}

// sharedSize is the part of an image's unpacked layers that others use too.
func (s *Service) sharedSize(ctx context.Context, e entry, users map[digest.Digest]int) int64 {
	var n int64
	seen := map[digest.Digest]bool{}
	for _, v := range e.variants {
		for _, c := range chainsOf(v) {
			if users[c] < 2 || seen[c] {
				continue
			}
			seen[c] = true
			if u, err := s.snap.Usage(ctx, c.String()); err == nil {
				n += u.Size
			}
		}
	}
	return n
}

var listFilters = []string{"before", "dangling", "label", "label!", "reference", "since", "until"}

// listFilter reads the filters of a list.
func (s *Service) listFilter(ctx context.Context, f filters.Args) (func(entry) bool, error) {
	if err := f.Validate(listFilters...); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	before, err := s.moment(ctx, f, "before")
	if err != nil {
		return nil, err
	}
	since, err := s.moment(ctx, f, "since")
	if err != nil {
		return nil, err
	}
	until, err := untilTime(f)
	if err != nil {
		return nil, err
	}
	return func(e entry) bool {
		c := e.created()
		return (before.IsZero() || c.Before(before)) && (since.IsZero() || c.After(since)) &&
			(until.IsZero() || c.Before(until)) && f.Labels("label", e.labels()) &&
			(!f.Has("dangling") || dangling == e.dangling()) &&
			(!f.Has("reference") || slices.ContainsFunc(append(e.repoTags(), e.repoDigests()...), func(n string) bool { return matchesReference(f, n) }))
	}, nil
}

func matchesReference(f filters.Args, name string) bool {
	if !f.Has("reference") {
		return true
	}
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(f.Get("reference"), func(pattern string) bool {
		ok, err := reference.FamiliarMatch(pattern, n)
		return err == nil && ok
	})
}

// moment is when the image that a filter names was made.
func (s *Service) moment(ctx context.Context, f filters.Args, key string) (time.Time, error) {
	if !f.Has(key) {
		return time.Time{}, nil
	}
	ref := f.Get(key)[0]
	found, err := s.find(ctx, ref)
	if err != nil {
		return time.Time{}, err
	}
	v, err := s.pick(ctx, ref, found.target, nil)
	if err != nil || v.config.Created == nil {
		return time.Time{}, err
	}
	return *v.config.Created, nil
}
