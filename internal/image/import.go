package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import makes an image of one layer from the archive of a root file system,
// compressed or not. It returns the image's id.
func (s *Service) Import(ctx context.Context, r io.Reader, opts ImportOptions) (_ string, err error) {
	ctx = s.context(ctx)
	name, err := optionalName(opts.Ref)
	if err != nil {
		return "", err
	}
	var c container.Config
	if err := ApplyChanges(&c, opts.Changes); err != nil {
		return "", err
	}
	lctx, release, err := s.leased(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	plain, err := archiveReader(r)
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	defer plain.Close()
	layer, diffID, err := s.gzipLayer(lctx, fmt.Sprintf("import-%d", time.Now().UnixNano()), func(w io.Writer) error {
		return copyTar(w, plain)
	})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	return s.publish(lctx, name, importedConfig(c, diffID, opts), []ocispec.Descriptor{layer})
}

func importedConfig(c container.Config, diffID digest.Digest, opts ImportOptions) dockerspec.DockerOCIImage {
	now, p := time.Now().UTC(), platforms.DefaultSpec()
	if opts.Platform != nil {
		p = *opts.Platform
	}
	return dockerspec.DockerOCIImage{
		Image: ocispec.Image{
			Created: &now, Platform: p,
			RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
			History: []ocispec.History{{Created: &now, Comment: opts.Message}},
		},
		Config: imageConfig(&c),
	}
}

// copyTar copies an archive as it is, after making sure that it is one.
func copyTar(w io.Writer, r io.Reader) error {
	tee := io.TeeReader(r, w)
	tr := tar.NewReader(tee)
	for {
		_, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("not a tar archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	_, err := io.Copy(io.Discard, tee)
	return err
}
