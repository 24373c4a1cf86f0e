package image

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerArchive is what "docker save" of old wrote.
func dockerArchive(t *testing.T, imgs map[string]v1.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	refs := map[name.Tag]v1.Image{}
	for ref, img := range imgs {
		refs[must(name.NewTag(ref))] = img
	}
	if err := tarball.MultiWrite(refs, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ociArchive is an OCI layout with one image under an annotation.
func ociArchive(t *testing.T, img v1.Image, annotations map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	p := must(layout.Write(dir, empty.Index))
	if err := p.AppendImage(img, layout.WithAnnotations(annotations)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

func load(t *testing.T, s *Service, b []byte) string {
	t.Helper()
	var out said
	if err := s.Load(t.Context(), bytes.NewReader(b), LoadOptions{Progress: out.hear}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLoadDockerArchive(t *testing.T) {
	s := open(t, Config{})
	a, b := randomImage(t, runtime.GOARCH, 2, 1000), randomImage(t, runtime.GOARCH, 1, 1000)
	out := load(t, s, dockerArchive(t, map[string]v1.Image{"one:v1": a, "host.example/two:v2": b}))
	for _, line := range []string{"Loaded image: one:v1", "Loaded image: host.example/two:v2"} {
		if !strings.Contains(out, line) {
			t.Errorf("progress lacks %q:\n%s", line, out)
		}
	}
	c, _ := a.ConfigName()
	if got := resolve(t, s, "one:v1"); resolve(t, s, c.String()).ID != got.ID || got.ChainID == "" {
		t.Errorf("not found by its configuration: %+v", got)
	}
	if err := removeAll(t, s, "one:v1", "host.example/two:v2"); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, s)
}

func TestLoadOCIArchive(t *testing.T) {
	img := randomImage(t, runtime.GOARCH, 2, 1000)
	d, _ := img.Digest()
	for annotation, want := range map[string]string{
		"docker.io/library/app:v1": "Loaded image: app:v1", "host.example/x:2": "Loaded image: host.example/x:2", "latest": "Loaded image ID: " + d.String(), "": "Loaded image ID: " + d.String(),
	} {
		s := open(t, Config{})
		out := load(t, s, ociArchive(t, img, map[string]string{ocispec.AnnotationRefName: annotation}))
		if out != want {
			t.Errorf("%q: %s, want %s", annotation, out, want)
		}
		if got := resolve(t, s, d.String()); got.ID != d.String() {
			t.Errorf("got %s", got.ID)
		}
	}
}

func TestLoadCompressed(t *testing.T) {
	plain := dockerArchive(t, map[string]v1.Image{"app:v1": randomImage(t, runtime.GOARCH, 1, 1000)})
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(plain)
	w.Close()
	z := must(zstd.NewWriter(&zs))
	z.Write(plain)
	z.Close()
	for name, b := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zs.Bytes()} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			load(t, s, b)
			resolve(t, s, "app:v1")
		})
	}
	if _, err := archiveReader(strings.NewReader("\xfd7zXZ\x00rest")); !errdefs.IsNotImplemented(err) {
		t.Errorf("xz: %v", err)
	}
	r, err := archiveReader(strings.NewReader("BZh9 not really"))
	if err != nil {
		t.Fatal(err)
	}
	var bad bzip2.StructuralError
	if _, err := io.ReadAll(r); !errors.As(err, &bad) {
		t.Errorf("bzip2: %v", err)
	}
}

func TestLoadBadArchives(t *testing.T) {
	good := ociArchive(t, randomImage(t, runtime.GOARCH, 2, 1000), nil)
	without := func(b []byte, drop func(*tar.Header, []byte) bool) []byte {
		var out bytes.Buffer
		w, r := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(b))
		for h, err := r.Next(); err == nil; h, err = r.Next() {
			body := must(io.ReadAll(r))
			if !drop(h, body) {
				w.WriteHeader(h)
				w.Write(body)
			}
		}
		w.Close()
		return out.Bytes()
	}
	flipped := bytes.Clone(good)
	for i, at := 0, bytes.Index(good, []byte{0x1f, 0x8b})+40; i < 20; i++ {
		flipped[at+i] ^= 0xff
	}
	for name, b := range map[string][]byte{
		"no archive": []byte("this is not an archive, just some text"),
		"empty":      nil,
		"other tar":  without(good, func(h *tar.Header, _ []byte) bool { return !strings.HasPrefix(h.Name, "blobs") }),
		"no layers":  without(good, func(h *tar.Header, b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b}) }),
		"no documents": without(good, func(h *tar.Header, b []byte) bool {
			return strings.HasPrefix(h.Name, "blobs") && bytes.HasPrefix(b, []byte("{"))
		}),
		"cut off": good[:len(good)/2],
		"corrupt": flipped,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			err := s.Load(t.Context(), bytes.NewReader(b), LoadOptions{})
			if err == nil || !strings.HasPrefix(err.Error(), "load: ") {
				t.Errorf("error: %v", err)
			}
			t.Log(err)
			wantNothingLeft(t, s)
		})
	}
}

// The importer must not read a configuration of any size into memory.
func TestLoadHugeConfiguration(t *testing.T) {
	s := open(t, Config{})
	img := imageOf(t, layerOf(t, "a=1"))
	cfg := must(img.ConfigFile()).DeepCopy()
	cfg.Config.Env = []string{strings.Repeat("x", maxDocument)}
	b := dockerArchive(t, map[string]v1.Image{"a:v1": must(mutate.ConfigFile(img, cfg))})
	if err := s.Load(t.Context(), bytes.NewReader(b), LoadOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "allowed are") {
		t.Errorf("error: %v", err)
	}
	wantNothingLeft(t, s)
}

func tarFiles(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name] != nil {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		out[h.Name] = append([]byte{}, must(io.ReadAll(r))...)
	}
}

func TestSave(t *testing.T) {
	s := open(t, Config{})
	a, b := randomImage(t, runtime.GOARCH, 2, 1000), randomImage(t, runtime.GOARCH, 1, 1000)
	load(t, s, dockerArchive(t, map[string]v1.Image{"one:v1": a, "two:v1": b}))
	if err := s.Tag(t.Context(), "one:v1", "one:v2"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Save(t.Context(), []string{"one", "two:v1"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	files := tarFiles(t, out.Bytes())
	var m []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &m); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, e := range m {
		tags = append(tags, e.RepoTags...)
		for _, f := range append(e.Layers, e.Config) {
			if files[f] == nil {
				t.Errorf("manifest.json names %s, which is not there", f)
			}
		}
	}
	slices.Sort(tags)
	if got := strings.Join(tags, " "); got != "one:v1 one:v2 two:v1" {
		t.Errorf("tags %s", got)
	}
	if files["oci-layout"] == nil || files["index.json"] == nil {
		t.Error("not an OCI layout")
	}

	again := open(t, Config{})
	load(t, again, out.Bytes())
	for _, ref := range []string{"one:v1", "one:v2", "two:v1"} {
		if x, y := resolve(t, s, ref), resolve(t, again, ref); x.ID != y.ID || x.ChainID != y.ChainID {
			t.Errorf("%s became %s, was %s", ref, y.ID, x.ID)
		}
	}
	// Others read it too.
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(path, new(must(name.NewTag("two:v1"))))
	if err != nil {
		t.Fatal(err)
	}
	if x, y := must(img.ConfigName()), must(b.ConfigName()); x != y {
		t.Errorf("configuration %s, want %s", x, y)
	}
	if err := s.Save(t.Context(), []string{"one:v1", "nope"}, nil, io.Discard); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
	out.Reset()
	if err := s.Save(t.Context(), []string{resolve(t, s, "two:v1").ID}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if f := tarFiles(t, out.Bytes()); !strings.Contains(string(f["manifest.json"]), `"RepoTags":null`) && !strings.Contains(string(f["manifest.json"]), `"RepoTags":[]`) {
		t.Errorf("saved by id, it has a name: %s", f["manifest.json"])
	}
}

// Of an image of many platforms only what is here can be saved, and loaded again.
func TestSavePartialIndex(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	idx := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: randomImage(t, arch, 1, 100),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref := reg.addIndex(t, "multi:latest", idx)
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	if err := s.Pull(t.Context(), ref, PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: other}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Save(t.Context(), []string{ref}, nil, &out); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{})
	load(t, again, out.Bytes())
	if got := resolve(t, again, ref); got.Platform.Architecture != other || got.ID != resolve(t, s, ref).ID {
		t.Errorf("got %+v", got.Platform)
	}
	want := []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	if err := s.Save(t.Context(), []string{ref}, want, io.Discard); !errdefs.IsNotFound(err) {
		t.Errorf("platform that is not here: %v", err)
	}
	var err error
	if err = again.Push(t.Context(), reg.Host+"/copy:v1", PushOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("push of what is not there: %v", err)
	}
	if err := again.Tag(t.Context(), ref, reg.Host+"/copy:v1"); err != nil {
		t.Fatal(err)
	}
	var p said
	if err := again.Push(t.Context(), reg.Host+"/copy:v1", PushOptions{Progress: p.hear}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.String(), `"manifestPushedInsteadOfIndex":true`) {
		t.Errorf("push said:\n%s", &p)
	}
}

func TestPush(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 2, 100<<10)
	load(t, s, ociArchive(t, img, map[string]string{ocispec.AnnotationRefName: "docker.io/library/app:v1"}))
	dst := reg.Host + "/my/app:v2"
	if err := s.Tag(t.Context(), "app:v1", dst); err != nil {
		t.Fatal(err)
	}
	var p said
	if err := s.Push(t.Context(), dst, PushOptions{Progress: p.hear}); err != nil {
		t.Fatal(err)
	}
	d, _ := img.Digest()
	size, _ := img.Size()
	for _, line := range []string{"The push refers to repository [" + reg.Host + "/my/app]", ": Preparing", ": Pushed",
		"v2: digest: " + d.String() + " size: " + asJSON(t, size), `"Digest":"` + d.String()} {
		if !strings.Contains(p.String(), line) {
			t.Errorf("progress lacks %q:\n%s", line, &p)
		}
	}
	p = said{}
	if err := s.Push(t.Context(), dst, PushOptions{Progress: p.hear}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(p.String(), "Layer already exists") != 2 {
		t.Errorf("second push said:\n%s", &p)
	}
	if got := pullNow(t, open(t, Config{}), dst); got.ID != d.String() {
		t.Errorf("pulled %s, want %s", got.ID, d)
	}
	if err := s.Push(t.Context(), reg.Host+"/nope", PushOptions{}); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "An image does not exist locally with the tag: "+reg.Host+"/nope") {
		t.Errorf("unknown image: %v", err)
	}
	if err := s.Push(t.Context(), "127.0.0.1:1/x", PushOptions{}); err == nil {
		t.Error("no error")
	}
}

func TestImport(t *testing.T) {
	s := open(t, Config{})
	var b bytes.Buffer
	w := rootTar{tar.NewWriter(&b)}
	w.dirs(0o755, "etc/")
	w.file("etc/motd", 0o644, "hello\n")
	w.Close()
	id, err := s.Import(t.Context(), &b, ImportOptions{Ref: "imported:v1", Message: "by hand",
		Changes: []string{`CMD ["cat","/etc/motd"]`, "ENV A=1 B='2 3'", "EXPOSE 80 443/udp", "LABEL x=y", "WORKDIR /etc"}})
	if err != nil {
		t.Fatal(err)
	}
	got := resolve(t, s, "imported:v1")
	c := got.Config.Config
	if got.ID != id || asJSON(t, c.Cmd) != `["cat","/etc/motd"]` || asJSON(t, c.Env) != `["A=1","B=2 3"]` || c.WorkingDir != "/etc" ||
		asJSON(t, c.ExposedPorts) != `{"443/udp":{},"80/tcp":{}}` || c.Labels["x"] != "y" {
		t.Errorf("configuration %s", asJSON(t, got.Config))
	}
	h, err := s.History(t.Context(), "imported:v1", nil)
	if err != nil || len(h) != 1 || h[0].Comment != "by hand" || h[0].ID != id || h[0].Size == 0 {
		t.Errorf("history %s %v", asJSON(t, h), err)
	}
	if err := removeAll(t, s, "imported:v1"); err != nil {
		t.Error(err)
	}
	for text, opts := range map[string]ImportOptions{"garbage, not a tar archive": {}, "": {Changes: []string{"RUN x"}}, "x": {Ref: "Bad Ref"}} {
		if _, err := s.Import(t.Context(), strings.NewReader(text), opts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q %+v: %v", text, opts, err)
		}
	}
	wantNothingLeft(t, s)
}
