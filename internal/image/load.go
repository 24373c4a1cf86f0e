package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveReader undoes the compression of an archive.
func archiveReader(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	head, _ := br.Peek(6)
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return nil, fmt.Errorf("archive is compressed with xz, which is not supported (hint: xz -dc FILE | isle load): %w", errdefs.ErrNotImplemented)
	}
	return decompress(br)
}

// Load takes the images in an archive made by "docker save", or in the OCI
// layout; compressed or not. All of them arrive, or none does.
func (s *Service) Load(ctx context.Context, r io.Reader, opts LoadOptions) (err error) {
	ctx = s.context(ctx)
	plain, err := archiveReader(r)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer plain.Close()
	lctx, release, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	target, err := archive.ImportIndex(lctx, boundedStore{s.content}, plain)
	if err != nil {
		return loadError(err)
	}
	var idx ocispec.Index
	if err := s.document(lctx, target, &idx); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if len(idx.Manifests) == 0 {
		return fmt.Errorf("load: the archive has no images: %w", errdefs.ErrInvalidArgument)
	}
	for _, d := range idx.Manifests {
		if err := s.admit(lctx, d, opts.Platforms); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	if err := s.nameLoaded(lctx, idx.Manifests, newProgress(opts.Progress)); err != nil {
		return err
	}
	for _, d := range idx.Manifests {
		if opts.Loaded != nil {
			opts.Loaded(d.Digest.String())
		}
	}
	return nil
}

// boundedStore keeps the importer, which reads configurations whole, from
// reading one that is too large.
type boundedStore struct{ content.Store }

func (b boundedStore) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := b.Store.ReaderAt(ctx, d)
	if err == nil && images.IsConfigType(d.MediaType) && ra.Size() > maxDocument {
		ra.Close()
		return nil, tooMuch("image configuration %s has %d bytes, allowed are %d", d.Digest, d.Size, maxDocument)
	}
	return ra, err
}

func loadError(err error) error {
	if errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("load: %w", err)
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("load: %w", err)
	}
	return fmt.Errorf("load: not an image archive: %w: %w", err, errdefs.ErrInvalidArgument)
}

// admit checks an image that has been read from an archive, ties its parts
// together and unpacks what can run here.
func (s *Service) admit(ctx context.Context, target ocispec.Descriptor, want []ocispec.Platform) error {
	if err := s.tie(ctx, target, maxNesting); err != nil {
		return err
	}
	found, err := s.variants(ctx, target)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("image %s: its manifest or configuration is not in the archive: %w", target.Digest, errdefs.ErrInvalidArgument)
	}
	if err := provides(found, want); err != nil {
		return err
	}
	unpacked := 0
	for _, v := range found {
		if !s.complete(ctx, v) {
			continue
		}
		if err := s.unpack(ctx, v, s.present, watcher{}); err != nil {
			return err
		}
		unpacked++
	}
	if unpacked == 0 {
		return fmt.Errorf("image %s: layers are not in the archive: %w", target.Digest, errdefs.ErrInvalidArgument)
	}
	return nil
}

// tie labels an image's content so that its root keeps the rest.
func (s *Service) tie(ctx context.Context, d ocispec.Descriptor, nesting int) error {
	switch {
	case images.IsManifestType(d.MediaType):
		var m ocispec.Manifest
		if err := s.document(ctx, d, &m); err != nil {
			return err
		}
		return s.label(ctx, d.Digest, manifestRefs(m))
	case images.IsIndexType(d.MediaType) && nesting > 0:
		var idx ocispec.Index
		if err := s.document(ctx, d, &idx); err != nil {
			return err
		}
		for _, m := range idx.Manifests {
			if err := s.tie(ctx, m, nesting-1); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return s.label(ctx, d.Digest, indexRefs(idx))
	}
	return fmt.Errorf("%s has type %q, which is not an image: %w", d.Digest, d.MediaType, errdefs.ErrInvalidArgument)
}

// nameLoaded gives the images their names and tells the client about them.
func (s *Service) nameLoaded(ctx context.Context, targets []ocispec.Descriptor, p *progress) error {
	for _, d := range targets {
		name := archiveName(d)
		if name == "" {
			if err := s.setNameless(ctx, d); err != nil {
				return err
			}
			p.send(jsonstream.Message{Stream: "Loaded image ID: " + d.Digest.String() + "\n"})
			continue
		}
		if err := s.setName(ctx, name, d, nil); err != nil {
			return err
		}
		p.send(jsonstream.Message{Stream: "Loaded image: " + familiar(name) + "\n"})
	}
	return nil
}

// archiveName is the name that an archive gives an image; "" when that is none
// or only a tag, which says nothing without its repository.
func archiveName(d ocispec.Descriptor) string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		n, err := reference.ParseNormalizedNamed(d.Annotations[key])
		if err != nil || key == ocispec.AnnotationRefName && reference.IsNameOnly(n) {
			continue
		}
		return reference.TagNameOnly(n).String()
	}
	return ""
}
