package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// variant is an image for one platform, as it is in the content store.
type variant struct {
	desc     ocispec.Descriptor // of the manifest
	manifest ocispec.Manifest
	config   dockerspec.DockerOCIImage
	platform ocispec.Platform
}

// chainID names the snapshot of all layers; "" for an image without any.
func (v variant) chainID() digest.Digest { return identity.ChainID(v.config.RootFS.DiffIDs) }

// read returns a document from the content store.
func (s *Service) read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	ra, err := s.content.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("image content %s: %w", d.Digest, err)
	}
	defer ra.Close()
	if ra.Size() > maxDocument {
		return nil, tooMuch("%s %s has %d bytes, allowed are %d", d.MediaType, d.Digest, ra.Size(), maxDocument)
	}
	return io.ReadAll(content.NewReader(ra))
}

func (s *Service) document(ctx context.Context, d ocispec.Descriptor, into any) error {
	b, err := s.read(ctx, d)
	if err != nil {
		return err
	}
	if err := decode(b, into); err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	return nil
}

// manifests are the manifests that target leads to, in the order of the index.
// Those that are not in the store are among them.
func (s *Service) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	return s.manifestsBelow(ctx, target, maxNesting)
}

func (s *Service) manifestsBelow(ctx context.Context, d ocispec.Descriptor, nesting int) ([]ocispec.Descriptor, error) {
	if images.IsManifestType(d.MediaType) {
		return []ocispec.Descriptor{d}, nil
	}
	if !images.IsIndexType(d.MediaType) {
		return nil, nil
	}
	if nesting == 0 {
		return nil, tooMuch("image index is nested more than %d deep", maxNesting)
	}
	var idx ocispec.Index
	if err := s.document(ctx, d, &idx); err != nil {
		return nil, err
	}
	if len(idx.Manifests) > maxManifests {
		return nil, tooMuch("image index has %d manifests, allowed are %d", len(idx.Manifests), maxManifests)
	}
	var all []ocispec.Descriptor
	for _, child := range idx.Manifests {
		below, err := s.manifestsBelow(ctx, child, nesting-1)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// attestation reports whether a manifest of an index is about another one.
func attestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// variant reads what a manifest's descriptor leads to.
func (s *Service) variant(ctx context.Context, d ocispec.Descriptor) (variant, error) {
	v := variant{desc: d}
	raw, err := s.read(ctx, d)
	if err != nil {
		return v, err
	}
	if err := decode(raw, &v.manifest); err != nil {
		return v, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if err := checkManifest(v.manifest, raw); err != nil {
		return v, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if err := s.document(ctx, v.manifest.Config, &v.config); err != nil {
		return v, err
	}
	return v, v.settle()
}

// settle checks that configuration and manifest fit and finds the platform.
func (v *variant) settle() error {
	if len(v.config.RootFS.DiffIDs) != len(v.manifest.Layers) {
		return fmt.Errorf("image configuration %s names %d layers, its manifest %d: %w",
			v.manifest.Config.Digest, len(v.config.RootFS.DiffIDs), len(v.manifest.Layers), errdefs.ErrInvalidArgument)
	}
	for _, d := range v.config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("image configuration %s: %w: %w", v.manifest.Config.Digest, err, errdefs.ErrInvalidArgument)
		}
	}
	switch p := v.config.Platform; {
	case p.OS != "" && p.Architecture != "":
		v.platform = platforms.Normalize(p)
	case v.desc.Platform != nil:
		v.platform = platforms.Normalize(*v.desc.Platform)
	default:
		v.platform = platforms.DefaultSpec()
	}
	return nil
}

// variants are those platforms of an image that are in the store.
func (s *Service) variants(ctx context.Context, target ocispec.Descriptor) ([]variant, error) {
	all, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var found []variant
	for _, d := range all {
		if attestation(d) {
			continue
		}
		v, err := s.variant(ctx, d)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, v)
	}
	return found, nil
}

// pick chooses a platform's variant of an image: the wanted one; when none is
// wanted the host's, or else the first that there is.
func (s *Service) pick(ctx context.Context, ref string, target ocispec.Descriptor, want *ocispec.Platform) (variant, error) {
	found, err := s.variants(ctx, target)
	if err != nil {
		return variant{}, fmt.Errorf("image %s: %w", ref, err)
	}
	match := matcher(want)
	sort.SliceStable(found, func(i, j int) bool { return match.Less(found[i].platform, found[j].platform) })
	for _, v := range found {
		if match.Match(v.platform) {
			return v, nil
		}
	}
	if want == nil && len(found) > 0 {
		return found[0], nil
	}
	shown := platforms.DefaultSpec()
	if want != nil {
		shown = *want
	}
	return variant{}, fmt.Errorf("image with reference %s was found but does not provide the specified platform (%s): %w",
		ref, platforms.Format(shown), errdefs.ErrNotFound)
}

// matcher orders platforms by how well they do for p; nil is the host's.
func matcher(p *ocispec.Platform) platforms.MatchComparer {
	if p == nil {
		return platforms.Default()
	}
	return platforms.Only(platforms.Normalize(*p))
}

// put writes a document and says what it refers to, so that those things are
// kept as long as it is.
func (s *Service) put(ctx context.Context, mediaType string, doc any, refs map[string]string) (ocispec.Descriptor, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.putBytes(ctx, mediaType, b, refs)
}
