package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// uploads is how many layers are sent at a time.
const uploads = 5

// Push sends an image, or with opts.All every tag of its repository.
func (s *Service) Push(ctx context.Context, ref string, opts PushOptions) error {
	ctx = s.context(ctx)
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("invalid reference format: %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	if _, ok := n.(reference.Digested); ok {
		return fmt.Errorf("cannot push a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	names := []reference.Named{reference.TagNameOnly(n)}
	if opts.All {
		if names, err = s.tagsOf(ctx, n); err != nil {
			return err
		}
	}
	p := newProgress(opts.Progress)
	for _, n := range names {
		if err := s.pushOne(ctx, n, opts, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) tagsOf(ctx context.Context, n reference.Named) ([]reference.Named, error) {
	all, err := s.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []reference.Named
	for _, img := range all {
		m, err := reference.ParseNormalizedNamed(img.Name)
		if err == nil && m.Name() == n.Name() && tagged(img.Name) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("An image does not exist locally with the tag: %s: %w", reference.FamiliarName(n), errdefs.ErrNotFound)
	}
	return out, nil
}

func (s *Service) pushOne(ctx context.Context, n reference.Named, opts PushOptions, p *progress) error {
	f, err := s.findName(ctx, n)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("An image does not exist locally with the tag: %s: %w", reference.FamiliarName(n), errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	root, vs, err := s.toPush(ctx, n, f.target, opts.Platform)
	if err != nil {
		return err
	}
	r := s.remote(opts.Auth)
	tracker := docker.NewInMemoryTracker()
	pusher, err := r.resolver(tracker).Pusher(ctx, n.String()+"@"+root.Digest.String())
	if err != nil {
		return fmt.Errorf("registry of %s: %w", n, err)
	}
	job := push{s: s, name: n, pusher: pusher, tracker: tracker, progress: p}
	p.say("", fmt.Sprintf("The push refers to repository [%s]", n.Name()))
	if err := job.run(ctx, root, vs); err != nil {
		return pushError(n, err)
	}
	tag := n.(reference.Tagged).Tag()
	p.say("", fmt.Sprintf("%s: digest: %s size: %d", tag, root.Digest, root.Size))
	aux, err := json.Marshal(map[string]any{"Tag": tag, "Digest": root.Digest.String(), "Size": root.Size})
	if err != nil {
		return err
	}
	p.send(jsonstream.Message{Aux: (*json.RawMessage)(&aux)})
	if root.Digest != f.target.Digest {
		return job.note(f.target, root)
	}
	return nil
}

// toPush is what goes under the name: the whole image or, when one platform is
// wanted or only some are here, the manifest of one.
func (s *Service) toPush(ctx context.Context, n reference.Named, target ocispec.Descriptor, want *ocispec.Platform) (ocispec.Descriptor, []variant, error) {
	all, err := s.manifests(ctx, target)
	if err != nil {
		return target, nil, err
	}
	vs, err := s.variants(ctx, target)
	if err != nil {
		return target, nil, err
	}
	whole := !slices.ContainsFunc(all, func(d ocispec.Descriptor) bool { return !s.has(ctx, d.Digest) }) &&
		!slices.ContainsFunc(vs, func(v variant) bool { return !s.complete(ctx, v) })
	if want == nil && whole {
		return target, vs, nil
	}
	v, err := s.pick(ctx, reference.FamiliarString(n), target, want)
	if err != nil {
		return target, nil, err
	}
	if !s.complete(ctx, v) {
		return target, nil, fmt.Errorf("image %s: its content is not in the store: %w", reference.FamiliarString(n), errdefs.ErrNotFound)
	}
	d := ocispec.Descriptor{MediaType: v.desc.MediaType, Digest: v.desc.Digest, Size: v.desc.Size}
	return d, []variant{v}, nil
}

// pushError says in Docker's words why a registry did not take an image.
func pushError(n reference.Named, err error) error {
	status, code := registryCode(err)
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), status == 401, status == 403, code == "DENIED", code == "UNAUTHORIZED":
		return fmt.Errorf("push access denied for %s, repository does not exist or may require authorization: %w: %w", reference.FamiliarName(n), err, errdefs.ErrUnauthenticated)
	}
	return fmt.Errorf("push %s: %w", reference.FamiliarString(n), err)
}

// push is one image on its way out.
type push struct {
	s        *Service
	name     reference.Named
	pusher   remotes.Pusher
	tracker  docker.StatusTracker
	progress *progress
}

// run sends layers and configurations first, then manifests, then indexes: a
// registry takes nothing whose parts it does not have.
func (j *push) run(ctx context.Context, root ocispec.Descriptor, vs []variant) error {
	var blobs []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, v := range vs {
		for _, d := range append(slices.Clone(v.manifest.Layers), v.manifest.Config) {
			if !seen[d.Digest] {
				blobs = append(blobs, d)
			}
			seen[d.Digest] = true
		}
	}
	for _, d := range blobs {
		if images.IsLayerType(d.MediaType) {
			j.progress.step(shortDigest(d.Digest), "Preparing")
		}
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(uploads)
	for _, d := range blobs {
		eg.Go(func() error { return j.blob(gctx, d) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return j.documents(ctx, root, maxNesting)
}

func (j *push) documents(ctx context.Context, d ocispec.Descriptor, nesting int) error {
	if images.IsIndexType(d.MediaType) && nesting > 0 {
		var idx ocispec.Index
		if err := j.s.document(ctx, d, &idx); err != nil {
			return err
		}
		for _, m := range idx.Manifests {
			if err := j.attached(ctx, m); err != nil {
				return err
			}
			if err := j.documents(ctx, m, nesting-1); err != nil {
				return err
			}
		}
	}
	return j.send(ctx, d, nil)
}

// attached sends the blobs of a manifest that says something about another.
func (j *push) attached(ctx context.Context, d ocispec.Descriptor) error {
	if !attestation(d) {
		return nil
	}
	var m ocispec.Manifest
	if err := j.s.document(ctx, d, &m); err != nil {
		return err
	}
	for _, b := range append(m.Layers, m.Config) {
		if err := j.send(ctx, b, nil); err != nil {
			return err
		}
	}
	return nil
}

func (j *push) blob(ctx context.Context, d ocispec.Descriptor) error {
	if !images.IsLayerType(d.MediaType) {
		return j.send(ctx, d, nil)
	}
	id := shortDigest(d.Digest)
	info, err := j.s.content.Info(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	d.Annotations = sources(info.Labels) // repositories of the same registry it may be mounted from
	err = j.send(ctx, d, func(n int64) { j.progress.move(id, "Pushing", n, d.Size) })
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	j.progress.step(id, j.outcome(ctx, d))
	return nil
}

func sources(labels map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if len(k) > len(sourcePrefix) && k[:len(sourcePrefix)] == sourcePrefix {
			out[k] = v
		}
	}
	return out
}

const sourcePrefix = "containerd.io/distribution.source."

func (j *push) outcome(ctx context.Context, d ocispec.Descriptor) string {
	st, err := j.tracker.GetStatus(remotes.MakeRefKey(ctx, d))
	switch {
	case err == nil && st.MountedFrom != "":
		return "Mounted from " + st.MountedFrom
	case err == nil && st.Exists:
		return "Layer already exists"
	}
	return "Pushed"
}

// send uploads one piece of content unless the registry has it.
func (j *push) send(ctx context.Context, d ocispec.Descriptor, report func(int64)) error {
	w, err := j.pusher.Push(ctx, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	ra, err := j.s.content.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	body := &upload{SectionReader: io.NewSectionReader(ra, 0, d.Size), report: report}
	return content.Copy(ctx, w, body, d.Size, d.Digest)
}

// upload is a body that reports how much of it has been read.
type upload struct {
	*io.SectionReader
	report func(int64)
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.SectionReader.Read(p)
	if u.report != nil && n > 0 {
		at, serr := u.Seek(0, io.SeekCurrent)
		if serr == nil {
			u.report(at)
		}
	}
	return n, err
}

// note tells the client that the image of one platform went instead of all.
func (j *push) note(index, manifest ocispec.Descriptor) error {
	aux, err := json.Marshal(auxprogress.ManifestPushedInsteadOfIndex{
		ManifestPushedInsteadOfIndex: true, OriginalIndex: index, SelectedManifest: manifest,
	})
	if err != nil {
		return err
	}
	j.progress.send(jsonstream.Message{Aux: (*json.RawMessage)(&aux)})
	return nil
}
