package image

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applier unpacks layers straight into the directories that snapshots consist
// of. Unlike containerd's own it mounts nothing, starts no unpigz, and stops
// at a layer that grows out of proportion.
type applier struct{ content content.Provider }

var _ diff.Applier = applier{}

// Apply unpacks desc into mounts and returns what it was when uncompressed.
func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	var cfg diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &cfg); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	ra, err := a.content.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer ra.Close()
	in := io.Reader(content.NewReader(ra))
	if cfg.Progress != nil {
		in = &meter{r: in, report: cfg.Progress}
	}
	plain, err := decompress(in)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	defer plain.Close()
	sum := digest.Canonical.Digester()
	r := &growthLimit{r: io.TeeReader(plain, sum.Hash()), left: max(maxPlain, maxRatio*desc.Size)}
	if err := unpackTar(ctx, r, mounts); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum.Digest(), Size: r.n}, nil
}

// unpackTar also reads what follows the archive: it counts for the digest.
func unpackTar(ctx context.Context, r io.Reader, mounts []mount.Mount) error {
	dir, opts, err := unpackTarget(mounts)
	if err != nil {
		return err
	}
	if _, err := archive.Apply(ctx, dir, r, opts...); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// unpackTarget is the directory behind the mounts of a snapshot.
func unpackTarget(mounts []mount.Mount) (dir string, opts []archive.ApplyOpt, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("snapshot consists of %d mounts: %w", len(mounts), errdefs.ErrNotImplemented)
	}
	m := mounts[0]
	if m.Type != "overlay" {
		return m.Source, nil, nil
	}
	opts = append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	for _, o := range m.Options {
		if up, ok := strings.CutPrefix(o, "upperdir="); ok {
			dir = up
		}
		if low, ok := strings.CutPrefix(o, "lowerdir="); ok {
			opts = append(opts, archive.WithParents(strings.Split(low, ":")))
		}
	}
	if dir == "" {
		return "", nil, fmt.Errorf("snapshot has no upper directory: %w", errdefs.ErrInternal)
	}
	return dir, opts, nil
}

// decompress finds out how r is compressed and undoes it.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch compression.DetectCompression(head) {
	case compression.Gzip:
		return gzip.NewReader(br)
	case compression.Zstd:
		d, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(br), nil
	}
}

// growthLimit fails when more than left bytes are read.
type growthLimit struct {
	r       io.Reader
	n, left int64
}

func (g *growthLimit) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	g.n += int64(n)
	if g.left -= int64(n); g.left < 0 {
		return n, tooMuch("grows out of proportion when unpacked (more than %d bytes)", g.n-1)
	}
	return n, err
}

// meter reports how much has been read.
type meter struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.report(m.n)
	return n, err
}
