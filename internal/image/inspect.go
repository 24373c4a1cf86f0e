package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	storagetypes "github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect shows all about an image.
func (s *Service) Inspect(ctx context.Context, ref string, opts InspectOptions) (imagetypes.InspectResponse, error) {
	ctx = s.context(ctx)
	f, err := s.find(ctx, ref)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	v, err := s.pick(ctx, ref, f.target, opts.Platform)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	group, err := s.byTarget(ctx, f.target.Digest)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	e := s.entry(ctx, group)
	z := s.newSizes()
	if err := z.variant(ctx, v); err != nil {
		return imagetypes.InspectResponse{}, fmt.Errorf("image %s: %w", ref, err)
	}
	r := describe(e, v)
	r.Size, r.GraphDriver = z.total(), s.graphDriver(ctx, v)
	if opts.Manifests && opts.Platform == nil {
		r.Manifests, err = s.manifestSummaries(ctx, f.target, nil)
	}
	return r, err
}

func describe(e entry, v variant) imagetypes.InspectResponse {
	c := v.config
	target := e.target
	r := imagetypes.InspectResponse{
		ID: e.id(), RepoTags: e.repoTags(), RepoDigests: e.repoDigests(), Author: c.Author, Config: &c.Config,
		Architecture: v.platform.Architecture, Variant: v.platform.Variant, Os: v.platform.OS, OsVersion: v.platform.OSVersion,
		RootFS:     imagetypes.RootFS{Type: "layers"},
		Metadata:   imagetypes.Metadata{LastTagTime: e.tagged},
		Descriptor: &target,
	}
	if c.Created != nil {
		r.Created = c.Created.Format(time.RFC3339Nano)
	}
	if n := len(c.History); n > 0 {
		r.Comment = c.History[n-1].Comment
	}
	for _, d := range c.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	return r
}

func (s *Service) graphDriver(ctx context.Context, v variant) *storagetypes.DriverData {
	d := &storagetypes.DriverData{Name: s.storage.name, Data: map[string]string{}}
	if !s.storage.overlay() {
		return d
	}
	s.collect.RLock()
	defer s.collect.RUnlock()
	if dirs, err := s.lower(ctx, v.chainID()); err == nil && len(dirs) > 0 {
		d.Data["UpperDir"] = dirs[0]
		if len(dirs) > 1 {
			d.Data["LowerDir"] = strings.Join(dirs[1:], ":")
		}
	}
	return d
}

func chainsOf(v variant) []digest.Digest {
	return identity.ChainIDs(slices.Clone(v.config.RootFS.DiffIDs))
}

// manifestSummaries describe every manifest of an image, here or not.
func (s *Service) manifestSummaries(ctx context.Context, target ocispec.Descriptor, users []string) ([]imagetypes.ManifestSummary, error) {
	all, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []imagetypes.ManifestSummary
	for _, d := range all {
		m, err := s.manifestSummary(ctx, d, users)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (s *Service) manifestSummary(ctx context.Context, d ocispec.Descriptor, users []string) (imagetypes.ManifestSummary, error) {
	m := imagetypes.ManifestSummary{ID: d.Digest.String(), Descriptor: d, Kind: imagetypes.ManifestKindUnknown}
	z := s.newSizes()
	if attestation(d) {
		z.blob(ctx, d.Digest)
		m.Kind, m.Available = imagetypes.ManifestKindAttestation, s.has(ctx, d.Digest)
		m.AttestationData = &imagetypes.AttestationProperties{For: digest.Digest(d.Annotations["vnd.docker.reference.digest"])}
		m.Size.Content, m.Size.Total = z.content, z.content
		return m, nil
	}
	v, err := s.variant(ctx, d)
	if errdefs.IsNotFound(err) {
		m.Kind = imagetypes.ManifestKindImage
		m.ImageData = &imagetypes.ImageProperties{Containers: []string{}}
		if d.Platform != nil {
			m.ImageData.Platform = *d.Platform
		}
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := z.variant(ctx, v); err != nil {
		return m, err
	}
	m.Kind, m.Available = imagetypes.ManifestKindImage, s.complete(ctx, v)
	m.Size.Content, m.Size.Total = z.content, z.total()
	m.ImageData = &imagetypes.ImageProperties{Platform: v.platform, Containers: append([]string{}, users...)}
	m.ImageData.Size.Unpacked = z.plain
	return m, nil
}

// History lists the steps that made an image, last first.
func (s *Service) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	ctx = s.context(ctx)
	f, err := s.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	v, err := s.pick(ctx, ref, f.target, platform)
	if err != nil {
		return nil, err
	}
	chains := chainsOf(v)
	out := []imagetypes.HistoryResponseItem{}
	for _, h := range v.config.History {
		item := imagetypes.HistoryResponseItem{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy, Tags: nil}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && len(chains) > 0 {
			if u, err := s.snap.Usage(ctx, chains[0].String()); err == nil {
				item.Size = u.Size
			}
			chains = chains[1:]
		}
		out = append(out, item)
	}
	slices.Reverse(out)
	if len(out) > 0 {
		e := entry{target: f.target, names: f.names}
		out[0].ID, out[0].Tags = e.id(), e.repoTags()
	}
	return out, nil
}
