package image

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// found is what a user's reference means.
type found struct {
	target ocispec.Descriptor
	names  []string // all stored names of the target
	name   string   // the stored name that was meant; empty when it was an id
}

// shown is a name of the image for people; empty when it has none.
func (f found) shown() string {
	if f.name != "" {
		return familiar(f.name)
	}
	for _, n := range f.names {
		if !isDangling(n) {
			return familiar(n)
		}
	}
	return ""
}

// Resolve finds the image that ref means: a name, a name with a digest, an id
// or the beginning of one, the digest of a manifest or a configuration.
func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	ctx = s.context(ctx)
	if err := s.EnsureBuiltin(ctx, ref); err != nil {
		return Image{}, err
	}
	f, err := s.find(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	v, err := s.pick(ctx, ref, f.target, platform)
	if err != nil {
		return Image{}, err
	}
	return Image{
		ID: f.target.Digest.String(), Name: f.shown(), Manifest: v.desc,
		Config: v.config, ChainID: v.chainID(), Platform: v.platform,
	}, nil
}

var hexID = regexp.MustCompile(`^(?:sha256:)?([0-9a-f]{1,64})$`)

// find looks ref up: whole ids first, then names, then beginnings of ids.
func (s *Service) find(ctx context.Context, ref string) (found, error) {
	m := hexID.FindStringSubmatch(ref)
	if m != nil && (len(m[1]) == 64 || strings.HasPrefix(ref, "sha256:")) {
		return s.findID(ctx, ref, m[1])
	}
	n, err := parseName(ref)
	if err != nil {
		if m != nil {
			return s.findID(ctx, ref, m[1])
		}
		return found{}, err
	}
	f, err := s.findName(ctx, n)
	if errdefs.IsNotFound(err) && m != nil {
		if f, err := s.findID(ctx, ref, m[1]); !errdefs.IsNotFound(err) {
			return f, err
		}
	}
	return f, err
}

func noSuchImage(ref string) error {
	return fmt.Errorf("No such image: %s: %w", ref, errdefs.ErrNotFound)
}

// findName takes a normalized name. One with a digest also means an image that
// goes by a tag of the same repository.
func (s *Service) findName(ctx context.Context, n reference.Named) (found, error) {
	img, err := s.images.Get(ctx, n.String())
	if err == nil {
		return s.foundAs(ctx, img)
	}
	if !errdefs.IsNotFound(err) {
		return found{}, fmt.Errorf("image %s: %w", reference.FamiliarString(n), err)
	}
	if d, ok := n.(reference.Digested); ok {
		same, err := s.byTarget(ctx, d.Digest())
		if err != nil {
			return found{}, err
		}
		for _, img := range same {
			if strings.HasPrefix(img.Name, n.Name()+":") {
				return s.foundAs(ctx, img)
			}
		}
	}
	return found{}, noSuchImage(reference.FamiliarString(n))
}

func (s *Service) foundAs(ctx context.Context, img images.Image) (found, error) {
	same, err := s.byTarget(ctx, img.Target.Digest)
	if err != nil {
		return found{}, err
	}
	return found{target: img.Target, name: img.Name, names: namesOf(same)}, nil
}

func namesOf(imgs []images.Image) []string {
	names := make([]string, len(imgs))
	for i, img := range imgs {
		names[i] = img.Name
	}
	slices.Sort(names)
	return names
}

// findID takes the beginning of an id. The digests of manifests and
// configurations are looked at only when no target's matches.
func (s *Service) findID(ctx context.Context, ref, hex string) (found, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return found{}, fmt.Errorf("list images: %w", err)
	}
	begins := func(d digest.Digest) bool { return strings.HasPrefix(d.Encoded(), hex) }
	hits := targets(all, func(i images.Image) bool { return begins(i.Target.Digest) })
	if len(hits) == 0 {
		hits = targets(all, func(i images.Image) bool { return s.anyBelow(ctx, i.Target, begins) })
	}
	switch len(hits) {
	case 0:
		return found{}, noSuchImage(ref)
	case 1:
		for _, names := range hits {
			return found{target: names[0].Target, names: namesOf(names)}, nil
		}
	}
	return found{}, fmt.Errorf("ambiguous image id %q means %d images: %w", ref, len(hits), errdefs.ErrInvalidArgument)
}

func targets(all []images.Image, keep func(images.Image) bool) map[digest.Digest][]images.Image {
	hits := map[digest.Digest][]images.Image{}
	for _, img := range all {
		if keep(img) {
			hits[img.Target.Digest] = append(hits[img.Target.Digest], img)
		}
	}
	return hits
}

// anyBelow reports whether a manifest or configuration of target matches.
func (s *Service) anyBelow(ctx context.Context, target ocispec.Descriptor, match func(digest.Digest) bool) bool {
	vs, err := s.variants(ctx, target)
	if err != nil {
		s.log.Warn("image cannot be read", "image", target.Digest, "error", err)
	}
	return slices.ContainsFunc(vs, func(v variant) bool {
		return match(v.desc.Digest) || match(v.manifest.Config.Digest)
	})
}
