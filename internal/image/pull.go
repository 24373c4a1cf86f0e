package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sort"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Pull fetches an image, or with opts.All every tag of its repository, and
// unpacks it. An error before anything was reported is of a class that the
// API can answer with. A pull that fails leaves nothing, except that one that
// was interrupted leaves what it has for a later one to go on from.
func (s *Service) Pull(ctx context.Context, ref string, opts PullOptions) error {
	ctx = s.context(ctx)
	n, err := parseName(ref)
	if err != nil {
		return err
	}
	p := newProgress(opts.Progress)
	if isBuiltin(n) {
		return s.pullBuiltin(ctx, n, p)
	}
	r := s.remote(opts.Auth)
	if !opts.All {
		return s.pullOne(ctx, r, n, opts.Platform, p)
	}
	tags, err := r.tags(ctx, n)
	if err != nil {
		return err
	}
	for _, t := range tags {
		one, err := reference.WithTag(reference.TrimNamed(n), t)
		if err != nil {
			return fmt.Errorf("tag %q: %w: %w", t, err, errdefs.ErrInvalidArgument)
		}
		if err := s.pullOne(ctx, r, one, opts.Platform, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) pullOne(ctx context.Context, r remote, n reference.Named, platform *ocispec.Platform, p *progress) error {
	resolver := r.resolver(nil)
	_, target, err := resolver.Resolve(ctx, n.String())
	if err != nil {
		return remoteError(n, r.whyMissing(ctx, n, err), r.given())
	}
	fetcher, err := resolver.Fetcher(ctx, n.String())
	if err != nil {
		return fmt.Errorf("registry of %s: %w", n, err)
	}
	job := pull{s: s, name: n, fetcher: fetcher, progress: p}
	err = job.run(ctx, target, platform)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("no space left in %s: %w: %w", s.cfg.Dir, err, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("pull %s: %w", reference.FamiliarString(n), err)
}

// pull is one image on its way here.
type pull struct {
	s        *Service
	name     reference.Named
	fetcher  remotes.Fetcher
	progress *progress
	layers   []ocispec.Descriptor
	chains   map[string]ocispec.Descriptor // layer by the chain that ends in it
}

func (j *pull) run(ctx context.Context, target ocispec.Descriptor, platform *ocispec.Platform) (err error) {
	lctx, release, err := j.s.leased(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.s.dropBallast(), j.keepOrAbort(ctx, err))
		}
		err = errors.Join(err, release())
	}()
	v, err := j.choose(lctx, target, platform)
	if err != nil {
		return err
	}
	old, oldErr := j.s.images.Get(ctx, j.name.String())
	j.announce(lctx, v)
	w := watcher{extract: j.extracting, ready: j.ready}
	if err := j.s.unpack(lctx, v, j.fetchLayer, w); err != nil {
		return err
	}
	if err := j.remember(lctx, target); err != nil {
		return err
	}
	j.finish(target, oldErr == nil && old.Target.Digest == target.Digest)
	return nil
}

// choose fetches index, manifest and configuration for a platform.
func (j *pull) choose(ctx context.Context, target ocispec.Descriptor, platform *ocispec.Platform) (variant, error) {
	if err := j.documents(ctx, target, matcher(platform), maxNesting); err != nil {
		return variant{}, err
	}
	v, err := j.s.pick(ctx, reference.FamiliarString(j.name), target, platform)
	if errdefs.IsNotFound(err) {
		shown := platforms.DefaultSpec()
		if platform != nil {
			shown = *platform
		}
		return v, fmt.Errorf("no matching manifest for %s in the manifest list entries: %w", platforms.Format(shown), errdefs.ErrNotFound)
	}
	return v, err
}

// documents fetches d and, below it, what the wanted platform needs.
func (j *pull) documents(ctx context.Context, d ocispec.Descriptor, want platforms.MatchComparer, nesting int) error {
	switch {
	case images.IsIndexType(d.MediaType) && nesting > 0:
		return j.index(ctx, d, want, nesting)
	case images.IsManifestType(d.MediaType):
		return j.manifest(ctx, d)
	}
	return fmt.Errorf("%s has type %q, which is not an image: %w", d.Digest, d.MediaType, errdefs.ErrNotImplemented)
}

func (j *pull) index(ctx context.Context, d ocispec.Descriptor, want platforms.MatchComparer, nesting int) error {
	var idx ocispec.Index
	if _, err := j.document(ctx, d, &idx); err != nil {
		return err
	}
	if len(idx.Manifests) > maxManifests {
		return tooMuch("image index has %d manifests, allowed are %d", len(idx.Manifests), maxManifests)
	}
	if err := j.s.label(ctx, d.Digest, indexRefs(idx)); err != nil {
		return err
	}
	fit := slices.DeleteFunc(slices.Clone(idx.Manifests), func(m ocispec.Descriptor) bool {
		return attestation(m) || m.Platform != nil && !want.Match(*m.Platform)
	})
	sort.SliceStable(fit, func(a, b int) bool {
		return fit[a].Platform != nil && (fit[b].Platform == nil || want.Less(*fit[a].Platform, *fit[b].Platform))
	})
	for i, m := range fit {
		if i > 0 && m.Platform != nil { // the best is enough; what does not say its platform must be looked at
			break
		}
		if err := j.documents(ctx, m, want, nesting-1); err != nil {
			return err
		}
	}
	return nil
}

func (j *pull) manifest(ctx context.Context, d ocispec.Descriptor) error {
	var m ocispec.Manifest
	raw, err := j.document(ctx, d, &m)
	if err != nil {
		return err
	}
	if err := checkManifest(m, raw); err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if err := j.s.label(ctx, d.Digest, manifestRefs(m)); err != nil {
		return err
	}
	var any map[string]any
	_, err = j.document(ctx, m.Config, &any)
	return err
}

// document fetches a piece of JSON into the store unless it is there already.
func (j *pull) document(ctx context.Context, d ocispec.Descriptor, into any) ([]byte, error) {
	if err := checkDocument(d); err != nil {
		return nil, err
	}
	if err := j.fetch(ctx, d); err != nil {
		return nil, remoteError(j.name, err, false)
	}
	b, err := j.s.read(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := decode(b, into); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return b, nil
}

// fetch downloads d, going on from where an earlier attempt stopped. What
// arrives is checked against the digest before it counts.
func (j *pull) fetch(ctx context.Context, d ocispec.Descriptor) error {
	err := remotes.Fetch(ctx, j.s.content, metered{j.fetcher, j.progress}, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// announce shows what is going to happen with each layer.
func (j *pull) announce(ctx context.Context, v variant) {
	switch n := j.name.(type) {
	case reference.Digested:
		j.progress.say(n.Digest().String(), "Pulling from "+reference.Path(j.name))
	case reference.Tagged:
		j.progress.say(n.Tag(), "Pulling from "+reference.Path(j.name))
	}
	j.layers, j.chains = v.manifest.Layers, map[string]ocispec.Descriptor{}
	chains := identity.ChainIDs(slices.Clone(v.config.RootFS.DiffIDs))
	waiting := 0
	for i, l := range j.layers {
		_, err := j.s.snap.Stat(ctx, chains[i].String())
		if err == nil && j.s.has(ctx, l.Digest) {
			j.progress.step(shortDigest(l.Digest), "Already exists")
			continue
		}
		j.chains[chains[i].String()] = l
		j.progress.step(shortDigest(l.Digest), "Pulling fs layer")
		if waiting++; waiting > downloads {
			j.progress.step(shortDigest(l.Digest), "Waiting")
		}
	}
}

func (j *pull) fetchLayer(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	id, had := shortDigest(d.Digest), j.s.has(ctx, d.Digest)
	if err := j.fetch(ctx, d); err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	if !had {
		j.progress.step(id, "Download complete")
	}
	source, err := docker.AppendDistributionSourceLabel(j.s.content, j.name.String())
	if err != nil {
		return nil, err
	}
	return source(ctx, d)
}

func (j *pull) extracting(d ocispec.Descriptor, n int64) {
	j.progress.move(shortDigest(d.Digest), "Extracting", n, d.Size)
}

func (j *pull) ready(chain string) {
	if l, ok := j.chains[chain]; ok {
		j.progress.step(shortDigest(l.Digest), "Pull complete")
	}
}

// remember gives what has arrived its name.
func (j *pull) remember(ctx context.Context, target ocispec.Descriptor) error {
	if err := j.s.setName(ctx, j.name.String(), target, nil); err != nil {
		return err
	}
	return j.s.forgetPartial(ctx, j.layers)
}

func (j *pull) finish(target ocispec.Descriptor, same bool) {
	j.progress.say("", "Digest: "+target.Digest.String())
	if same {
		j.progress.say("", "Status: Image is up to date for "+reference.FamiliarString(j.name))
		return
	}
	j.progress.say("", "Status: Downloaded newer image for "+reference.FamiliarString(j.name))
}

// interrupted reports whether a download failed for a reason that has nothing
// to do with what had arrived by then.
func interrupted(err error) bool {
	var op *net.OpError
	status, _ := registryCode(err)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || status >= http.StatusInternalServerError
}

// metered is a fetcher that shows how far each layer is.
type metered struct {
	remotes.Fetcher
	progress *progress
}

func (m metered) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := m.Fetcher.Fetch(ctx, d)
	if err != nil || !images.IsLayerType(d.MediaType) {
		return rc, err
	}
	return &meteredBody{ReadCloser: rc, d: d, progress: m.progress}, nil
}

// meteredBody can seek as far as what it wraps can: that is how downloads resume.
type meteredBody struct {
	io.ReadCloser
	d        ocispec.Descriptor
	n        int64
	progress *progress
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.n += int64(n); n > 0 {
		b.progress.move(shortDigest(b.d.Digest), "Downloading", b.n, b.d.Size)
	}
	if n > 0 && b.n == b.d.Size {
		b.progress.step(shortDigest(b.d.Digest), "Verifying Checksum")
	}
	return n, err
}

func (b *meteredBody) Seek(offset int64, whence int) (int64, error) {
	sk, ok := b.ReadCloser.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("download of %s cannot be resumed: %w", b.d.Digest, errdefs.ErrNotImplemented)
	}
	n, err := sk.Seek(offset, whence)
	b.n = n
	return n, err
}
