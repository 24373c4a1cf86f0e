package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/toolbox/applets"
)

const (
	builtinName  = "docker.io/" + Builtin + ":latest"
	toolboxLabel = "isle.toolbox" // on the image's record: digest of the binary it was made of
)

// builtinState remembers which file the built-in image was found to be made of.
type builtinState struct {
	mu   sync.Mutex
	file fileID
}

// fileID changes when a file is replaced or written to.
type fileID struct {
	path  string
	size  int64
	mtime time.Time
}

func isBuiltin(n reference.Named) bool { return n.String() == builtinName }

// EnsureBuiltin assembles isle/toolbox when ref names it and it is not there,
// or is made of another binary than the one we have now.
func (s *Service) EnsureBuiltin(ctx context.Context, ref string) error {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !isBuiltin(reference.TagNameOnly(n)) {
		return nil
	}
	ctx = s.context(ctx)
	s.builtin.mu.Lock()
	defer s.builtin.mu.Unlock()
	img, err := s.images.Get(ctx, builtinName)
	have := err == nil
	fi, err := os.Stat(s.cfg.Toolbox)
	if err != nil {
		if have {
			return nil
		}
		return fmt.Errorf("built-in image %s: %w (hint: isle-toolbox belongs beside isled)", Builtin, err)
	}
	now := fileID{s.cfg.Toolbox, fi.Size(), fi.ModTime()}
	if have && now == s.builtin.file {
		return nil
	}
	sum, err := fileDigest(s.cfg.Toolbox)
	if err == nil && (!have || img.Labels[toolboxLabel] != sum.String()) {
		err = s.assemble(ctx, sum)
	}
	if err != nil {
		return fmt.Errorf("built-in image %s: %w", Builtin, err)
	}
	s.builtin.file = now
	return nil
}

func fileDigest(path string) (digest.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest.FromReader(f)
}

// assemble makes the image. It is the same for the same binary.
func (s *Service) assemble(ctx context.Context, binary digest.Digest) (err error) {
	lctx, release, err := s.leased(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	layer, err := s.toolboxLayer(lctx, binary)
	if err != nil {
		return err
	}
	epoch := time.Unix(0, 0).UTC()
	cfg := dockerspec.DockerOCIImage{Image: ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		History:  []ocispec.History{{Created: &epoch, CreatedBy: "isled", Comment: "built in"}},
	}}
	cfg.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cfg.Config.Cmd = []string{"sh"}
	v, err := s.putImage(lctx, cfg, []ocispec.Descriptor{layer})
	if err != nil {
		return err
	}
	return s.setName(lctx, builtinName, v.desc, map[string]string{toolboxLabel: binary.String()})
}

// putImage writes configuration and manifest for layers that are in the store,
// and unpacks. The caller's context has a lease.
func (s *Service) putImage(ctx context.Context, cfg dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (variant, error) {
	v := variant{config: cfg}
	c, err := s.put(ctx, ocispec.MediaTypeImageConfig, cfg, nil)
	if err != nil {
		return v, err
	}
	v.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: layers,
	}
	if v.desc, err = s.put(ctx, ocispec.MediaTypeImageManifest, v.manifest, manifestRefs(v.manifest)); err != nil {
		return v, err
	}
	if err := v.settle(); err != nil {
		return v, err
	}
	if len(layers) > maxLayers {
		return v, tooMuch("image would have %d layers, allowed are %d", len(layers), maxLayers)
	}
	return v, s.unpack(ctx, v, s.present, watcher{})
}

// toolboxLayer writes the one layer, uncompressed: it is local and small.
func (s *Service) toolboxLayer(ctx context.Context, binary digest.Digest) (ocispec.Descriptor, error) {
	bin, err := os.Open(s.cfg.Toolbox)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer bin.Close()
	return s.writeLayer(ctx, "toolbox-"+binary.Encoded(), ocispec.MediaTypeImageLayer, func(w io.Writer) error {
		return writeToolbox(w, bin)
	})
}

// writeLayer streams what fill writes into the content store.
func (s *Service) writeLayer(ctx context.Context, ref, mediaType string, fill func(io.Writer) error) (d ocispec.Descriptor, err error) {
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return d, fmt.Errorf("write layer: %w", err)
	}
	defer func() {
		err = errors.Join(err, w.Close())
		if err != nil {
			err = errors.Join(err, ignoreMissing(s.content.Abort(context.WithoutCancel(ctx), ref)))
		}
	}()
	if err := w.Truncate(0); err != nil {
		return d, fmt.Errorf("write layer: %w", err)
	}
	if err := fill(w); err != nil {
		return d, fmt.Errorf("write layer: %w", err)
	}
	st, err := w.Status()
	if err != nil {
		return d, fmt.Errorf("write layer: %w", err)
	}
	d = ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: st.Offset}
	if err := w.Commit(ctx, d.Size, d.Digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return d, fmt.Errorf("write layer: %w", err)
	}
	return d, nil
}

func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\nnobody:x:65534:\n"
	hosts  = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
)

// writeToolbox writes the root file system of isle/toolbox.
func writeToolbox(w io.Writer, bin *os.File) error {
	fi, err := bin.Stat()
	if err != nil {
		return err
	}
	t := rootTar{tar.NewWriter(w)}
	steps := []func() error{
		func() error { return t.dirs(0o755, "bin/", "dev/", "etc/", "proc/", "sys/", "var/") },
		func() error { return t.dirs(0o700, "root/") },
		func() error { return t.dirs(0o1777, "tmp/", "var/tmp/") },
		func() error { return t.file("etc/passwd", 0o644, passwd) },
		func() error { return t.file("etc/group", 0o644, group) },
		func() error { return t.file("etc/hosts", 0o644, hosts) },
		func() error { return t.entry(tar.Header{Name: "bin/isle-toolbox", Mode: 0o755, Size: fi.Size()}, bin) },
		t.links,
		t.Close,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// rootTar writes entries that belong to root and have no time.
type rootTar struct{ *tar.Writer }

func (t rootTar) entry(h tar.Header, body io.Reader) error {
	h.Format, h.ModTime = tar.FormatPAX, time.Unix(0, 0)
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if err := t.WriteHeader(&h); err != nil || body == nil {
		return err
	}
	_, err := io.Copy(t, body)
	return err
}

func (t rootTar) dirs(mode int64, names ...string) error {
	for _, n := range names {
		if err := t.entry(tar.Header{Name: n, Typeflag: tar.TypeDir, Mode: mode}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (t rootTar) file(name string, mode int64, body string) error {
	if err := t.entry(tar.Header{Name: name, Mode: mode, Size: int64(len(body))}, nil); err != nil {
		return err
	}
	_, err := io.WriteString(t, body)
	return err
}

func (t rootTar) links() error {
	for _, n := range applets.Names {
		h := tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "isle-toolbox", Mode: 0o777}
		if err := t.entry(h, nil); err != nil {
			return err
		}
	}
	return nil
}

// pullBuiltin is a pull that needs no registry.
func (s *Service) pullBuiltin(ctx context.Context, n reference.Named, p *progress) error {
	before, beforeErr := s.findName(ctx, n)
	if err := s.EnsureBuiltin(ctx, n.String()); err != nil {
		return err
	}
	now, err := s.findName(ctx, n)
	if err != nil {
		return err
	}
	p.say("latest", "Pulling from "+reference.Path(n))
	j := pull{name: n, progress: p}
	j.finish(now.target, beforeErr == nil && before.target.Digest == now.target.Digest)
	return nil
}
