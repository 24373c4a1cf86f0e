package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"isle/internal/config"
)

func TestPull(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 2, 1000)
	ref := reg.add(t, "some/app:v1", img)
	var out said
	if err := s.Pull(t.Context(), ref, PullOptions{Progress: out.hear}); err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	got := resolve(t, s, ref)
	if got.ID != want.String() || got.Name != ref || got.Config.Config.Cmd[0] != "true" {
		t.Errorf("resolved %+v, want id %s", got, want)
	}
	for _, line := range []string{"v1: Pulling from some/app", ": Pulling fs layer", ": Download complete", ": Pull complete",
		"Digest: " + want.String(), "Status: Downloaded newer image for " + ref} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("progress lacks %q:\n%s", line, &out)
		}
	}
	if last := out.lines[len(out.lines)-1]; !strings.HasPrefix(last, "Status: Downloaded") {
		t.Errorf("last line is %q", last)
	}

	out = said{}
	if err := s.Pull(t.Context(), ref, PullOptions{Progress: out.hear}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), ": Already exists"); n != 2 || !strings.Contains(out.String(), "Status: Image is up to date for "+ref) {
		t.Errorf("second pull said:\n%s", &out)
	}
}

func TestResolve(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 1, 100)
	ref := reg.add(t, "app:v1", img)
	pullNow(t, s, ref)
	d, _ := img.Digest()
	c, _ := img.ConfigName()
	for _, r := range []string{ref, reg.Host + "/app@" + d.String(), d.String(), d.Hex, d.Hex[:12], "sha256:" + d.Hex[:6], c.String(), c.Hex[:14]} {
		if got, err := s.Resolve(t.Context(), r, nil); err != nil || got.ID != d.String() {
			t.Errorf("%s: %v %v", r, got.ID, err)
		}
	}
	for r, want := range map[string]string{"nope": "No such image: nope:latest", "sha256:0000": "No such image: sha256:0000", "a/b:c": "No such image: a/b:c"} {
		_, err := s.Resolve(t.Context(), r, nil)
		if !errdefs.IsNotFound(err) || !strings.HasPrefix(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", r, err)
		}
	}
	if _, err := s.Resolve(t.Context(), "UPPER:x:y", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := s.Resolve(t.Context(), ref, &ocispec.Platform{OS: "linux", Architecture: "riscv64"}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "does not provide the specified platform (linux/riscv64)") {
		t.Errorf("missing platform: %v", err)
	}
}

func TestPullPlatform(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	idx := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: randomImage(t, arch, 1, 100),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref := reg.addIndex(t, "multi:latest", idx)
	if err := s.Pull(t.Context(), ref, PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}); err != nil {
		t.Fatal(err)
	}
	got := resolve(t, s, ref)
	if d, _ := idx.Digest(); got.Platform.Architecture != "s390x" || got.ID != d.String() {
		t.Errorf("got %s of %s", got.ID, got.Platform.Architecture)
	}
	if err := s.Pull(t.Context(), ref, PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"s390x", "arm64"} {
		if got, err := s.Resolve(t.Context(), ref, &ocispec.Platform{OS: "linux", Architecture: arch}); err != nil || got.Config.Config.Labels["arch"] != arch {
			t.Errorf("%s: %v %v", arch, got.Config.Config.Labels, err)
		}
	}
	err := s.Pull(t.Context(), ref, PullOptions{Platform: &ocispec.Platform{OS: "windows", Architecture: "amd64"}})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no matching manifest for windows/amd64 in the manifest list entries") {
		t.Errorf("platform that is not there: %v", err)
	}
}

func TestPullAll(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	for _, tag := range []string{"a", "b", "c"} {
		reg.add(t, "app:"+tag, randomImage(t, runtime.GOARCH, 1, 50))
	}
	if err := s.Pull(t.Context(), reg.Host+"/app", PullOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"a", "b", "c"} {
		resolve(t, s, reg.Host+"/app:"+tag)
	}
}

// blobGet matches the download of a layer.
func blobGet(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

func isLayer(t *testing.T, img v1.Image, r *http.Request) bool {
	ls, err := img.Layers()
	if err != nil {
		t.Error(err)
	}
	return blobGet(r) && slices.ContainsFunc(ls, func(l v1.Layer) bool {
		d, _ := l.Digest()
		return strings.HasSuffix(r.URL.Path, d.String())
	})
}

func TestPullErrors(t *testing.T) {
	reg := newRegistry(t)
	img := randomImage(t, runtime.GOARCH, 3, 5000)
	ref := reg.add(t, "app:v1", img)
	manifest := func(body string, size int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			d, _ := v1.NewHash("sha256:" + strings.Repeat("ab", 32))
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", d.String())
			w.Header().Set("Content-Length", fmt.Sprint(size))
			if r.Method == http.MethodGet {
				io.WriteString(w, body)
			}
			return true
		}
	}
	for name, c := range map[string]struct {
		ref   string
		fault func(http.ResponseWriter, *http.Request) bool
		is    func(error) bool
		text  string
	}{
		"unknown repository": {reg.Host + "/nope:v1", nil, errdefs.IsNotFound, "pull access denied for " + reg.Host + "/nope, repository does not exist or may require 'docker login'"},
		"unknown tag":        {reg.Host + "/app:v2", nil, errdefs.IsNotFound, "manifest for " + reg.Host + "/app:v2 not found: manifest unknown"},
		"bad name":           {"Bad Name", nil, errdefs.IsInvalidArgument, "invalid reference format"},
		"no registry":        {"127.0.0.1:1/app", nil, nil, "connection refused"},
		"corrupt layer": {ref, func(w http.ResponseWriter, r *http.Request) bool {
			if !isLayer(t, img, r) {
				return false
			}
			for _, l := range must(img.Layers()) {
				if d, _ := l.Digest(); strings.HasSuffix(r.URL.Path, d.String()) {
					n, _ := l.Size()
					w.Header().Set("Content-Length", fmt.Sprint(n))
					w.Write(make([]byte, n))
				}
			}
			return true
		}, nil, "unexpected commit digest"},
		"layer too long": {ref, func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(t, img, r) {
				w.Write(make([]byte, 1<<20))
				return true
			}
			return false
		}, nil, "expected size"},
		"manifest of another digest": {ref, manifest(`{"schemaVersion":2,"config":{},"layers":[]}`, 44), nil, ""},
		"manifest too large":         {ref, manifest("", maxDocument*2), errdefs.IsInvalidArgument, "8388608 bytes"},
		"server error":               {ref, func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }, nil, "503"},
		"forbidden":                  {ref, func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); return true }, errdefs.IsNotFound, "pull access denied"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			reg.setFault(c.fault)
			defer reg.setFault(nil)
			err := s.Pull(t.Context(), c.ref, PullOptions{})
			if err == nil || !strings.Contains(err.Error(), c.text) || c.is != nil && !c.is(err) {
				t.Errorf("error %v, want %q", err, c.text)
			}
			wantNothingLeft(t, s)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A diff id that the layer does not have is found only after it was unpacked.
func TestPullWrongDiffID(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 2, 500)
	cfg := must(img.ConfigFile()).DeepCopy()
	cfg.RootFS.DiffIDs[1] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("cd", 32)}
	ref := reg.add(t, "app:v1", lyingImage{must(mutate.ConfigFile(img, cfg)), img})
	err := s.Pull(t.Context(), ref, PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "wrong diff id") {
		t.Errorf("error: %v", err)
	}
	wantNothingLeft(t, s)
}

// lyingImage has the layers of one image and the configuration of another.
type lyingImage struct {
	v1.Image
	layers v1.Image
}

func (l lyingImage) Layers() ([]v1.Layer, error) { return l.layers.Layers() }

func TestPullResumesAfterCut(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 1, 3<<20)
	ref := reg.add(t, "app:v1", img)
	layer := must(img.Layers())[0]
	size := must(layer.Size())
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !isLayer(t, img, r) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		rc := must(layer.Compressed())
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.CopyN(w, rc, 2<<20)
		panic(http.ErrAbortHandler)
	})
	reg.Config.ErrorLog = nil
	err := s.Pull(t.Context(), ref, PullOptions{})
	if err == nil {
		t.Fatal("a pull that was cut off succeeded")
	}
	if l := strings.Join(leftovers(t, s), "\n"); !strings.Contains(l, "ingest layer-") || strings.Contains(l, "snapshot ") || strings.Contains(l, "content ") {
		t.Fatalf("after the cut (%v) there is:\n%s", err, l)
	}
	var seen []string
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if isLayer(t, img, r) {
			reg.mu.Lock()
			seen = append(seen, r.Header.Get("Range"))
			reg.mu.Unlock()
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(must(io.ReadAll(must(layer.Compressed()))))))
			return true
		}
		return false
	})
	pullNow(t, s, ref)
	if len(seen) != 1 || !strings.HasPrefix(seen[0], "bytes=") || seen[0] == "bytes=0-" {
		t.Errorf("second pull asked for ranges %q", seen)
	}
	if err := errors.Join(removeAll(t, s, ref)); err != nil {
		t.Error(err)
	}
	if l := leftovers(t, s); len(l) != 1 || l[0] != "lease "+resumeLease {
		t.Errorf("left behind: %v", l)
	}
}

func removeAll(t *testing.T, s *Service, refs ...string) error {
	for _, r := range refs {
		if _, err := s.Remove(t.Context(), r, RemoveOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func TestPullCancelled(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 4, 2<<20)
	ref := reg.add(t, "app:v1", img)
	ctx, cancel := context.WithCancel(t.Context())
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if isLayer(t, img, r) {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	})
	if err := s.Pull(ctx, ref, PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	for _, l := range leftovers(t, s) {
		if strings.HasPrefix(l, "snapshot") || strings.HasPrefix(l, "content") {
			t.Errorf("left behind: %s", l)
		}
	}
	reg.setFault(nil)
	pullNow(t, s, ref)
}

func TestPullFullDisk(t *testing.T) {
	reg := newRegistry(t)
	for name, size := range map[string]int{"while downloading": 8 << 20, "while unpacking": 2500 << 10} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
			s := open(t, Config{Dir: dir})
			ref := reg.add(t, "big:v1", randomImage(t, runtime.GOARCH, 1, size))
			err := s.Pull(t.Context(), ref, PullOptions{})
			if !errors.Is(err, unix.ENOSPC) || !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "no space left in "+dir) {
				t.Errorf("error: %v", err)
			}
			wantNothingLeft(t, s)
			small := reg.add(t, "small:v1", randomImage(t, runtime.GOARCH, 1, 1000))
			pullNow(t, s, small)
		})
	}
}

func TestConcurrentPulls(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	base := randomImage(t, runtime.GOARCH, 3, 200<<10)
	var refs []string
	for i := range 4 {
		l := must(random.Layer(1000, "application/vnd.docker.image.rootfs.diff.tar.gzip"))
		refs = append(refs, reg.add(t, fmt.Sprintf("app:v%d", i), must(mutate.AppendLayers(base, l))))
	}
	reg.setFault(nil)
	errs := make(chan error)
	for _, r := range append(refs, refs...) {
		go func() { errs <- s.Pull(t.Context(), r, PullOptions{}) }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	got := map[string]int{}
	for _, a := range reg.asked {
		if strings.HasPrefix(a, "GET") && strings.Contains(a, "/blobs/") {
			got[a]++
		}
	}
	for _, l := range must(base.Layers()) {
		d, _ := l.Digest()
		if n := got["GET /v2/app/blobs/"+d.String()]; n != 1 {
			t.Errorf("shared layer %s was downloaded %d times", d, n)
		}
	}
	if err := removeAll(t, s, refs...); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, s)
}

// CVE-2026-32288: a pull must not cost more than honest images do.
func TestCVE_2026_32288(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	if err := decode([]byte(deep), new(any)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("deep JSON: %v", err)
	}
	if err := decode([]byte(`{"a":"[[[[\"[[","b":[{"c":1}]}`), new(any)); err != nil {
		t.Errorf("brackets in strings: %v", err)
	}
	reg := newRegistry(t)
	t.Run("layers", func(t *testing.T) {
		s := open(t, Config{})
		ref := reg.add(t, "many:v1", randomImage(t, runtime.GOARCH, maxLayers+1, 10))
		if err := s.Pull(t.Context(), ref, PullOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "129 layers") {
			t.Errorf("error: %v", err)
		}
		wantNothingLeft(t, s)
	})
	t.Run("configuration", func(t *testing.T) {
		s := open(t, Config{})
		img := randomImage(t, runtime.GOARCH, 1, 10)
		cfg := must(img.ConfigFile()).DeepCopy()
		cfg.Config.Env = []string{strings.Repeat("x", maxDocument)}
		ref := reg.add(t, "cfg:v1", must(mutate.ConfigFile(img, cfg)))
		if err := s.Pull(t.Context(), ref, PullOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("error: %v", err)
		}
		wantNothingLeft(t, s)
	})
	t.Run("endless manifest", func(t *testing.T) {
		s := open(t, Config{})
		ref := reg.add(t, "endless:v1", randomImage(t, runtime.GOARCH, 1, 10))
		var sent atomic.Int64
		reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			for r.Method == http.MethodGet && r.Context().Err() == nil && sent.Load() < 64<<20 {
				n, err := w.Write(make([]byte, 1<<16))
				sent.Add(int64(n))
				if err != nil {
					break
				}
			}
			return true
		})
		defer reg.setFault(nil)
		if err := s.Pull(t.Context(), ref, PullOptions{}); err == nil {
			t.Error("no error")
		}
		if sent.Load() >= 64<<20 {
			t.Error("all of it was read")
		}
		wantNothingLeft(t, s)
	})
	t.Run("growth", func(t *testing.T) {
		g := &growthLimit{r: zeros{}, left: 1000}
		if n, err := io.Copy(io.Discard, g); !errdefs.IsInvalidArgument(err) || n > 64<<10 {
			t.Errorf("read %d: %v", n, err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// CVE-2026-92543: only the name that the user typed, and the address that is
// dialed, make a registry a local one; not what a name resolves to.
func TestCVE_2026_92543(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:5000": true, "[::1]:5000": true, "::1": true, "[::ffff:127.0.0.1]:5": true,
		"docker.io": false, "localhost.evil.example": false, "127.0.0.1.nip.io:5000": false, "10.0.0.1:5000": false, "0.0.0.0": false, "localhost6": false,
	} {
		if got := loopbackName(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	if err := loopbackOnly(t.Context(), "tcp", "192.0.2.1:5000", nil); !errdefs.IsPermissionDenied(err) {
		t.Errorf("dial of another machine: %v", err)
	}
	for _, a := range []string{"127.0.0.1:5000", "[::1]:5000"} {
		if err := loopbackOnly(t.Context(), "tcp", a, nil); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	// A name that is not local is never spoken to in plain HTTP.
	reg := newRegistry(t)
	c, err := newClient("registry.example:5000", config.Registry{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(strings.Replace(reg.URL, "http:", "https:", 1) + "/v2/"); err == nil {
		t.Error("plain HTTP was accepted")
	}
}

func TestTLSRegistry(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.add(t, "app:v1", randomImage(t, runtime.GOARCH, 1, 10))
	secure := httptest.NewTLSServer(reg.Config.Handler)
	defer secure.Close()
	host := strings.TrimPrefix(secure.URL, "https://")
	name := host + strings.TrimPrefix(ref, reg.Host)
	t.Run("loopback is not checked", func(t *testing.T) { pullNow(t, open(t, Config{}), name) })

	// By another name certificates count.
	_, port, _ := strings.Cut(host, ":")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, ca, secure.Certificate().Raw)
	get := func(c config.Registry) error {
		client, err := newClient("example.com:"+port, c)
		if err != nil {
			return err
		}
		ht := client.Transport.(*hostTransport)
		dialTo(ht, host)
		resp, err := client.Get("https://example.com:" + port + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(config.Registry{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown certificate: %v", err)
	}
	if err := get(config.Registry{CA: ca}); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	if err := get(config.Registry{CA: os.DevNull}); err == nil {
		t.Error("empty CA file was accepted")
	}
}

func TestMirror(t *testing.T) {
	mirror, reg := newRegistry(t), newRegistry(t)
	img := randomImage(t, runtime.GOARCH, 1, 10)
	mirror.add(t, "app:v1", img)
	ref := reg.add(t, "app:v1", img)
	only := reg.add(t, "only:v1", randomImage(t, runtime.GOARCH, 1, 10))
	reg.setFault(nil)
	mirror.setFault(nil)
	s := open(t, Config{Registries: map[string]config.Registry{reg.Host: {Mirrors: []string{mirror.URL}}}})
	if err := s.Pull(t.Context(), ref, PullOptions{Auth: &registry.AuthConfig{Username: "u", Password: "p"}}); err != nil {
		t.Fatal(err)
	}
	if len(reg.asked) > 0 || len(mirror.asked) == 0 {
		t.Errorf("registry was asked %v", reg.asked)
	}
	pullNow(t, s, only) // falls back
}

func TestAuth(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.add(t, "app:v1", randomImage(t, runtime.GOARCH, 1, 10))
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		u, p, _ := r.BasicAuth()
		if u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return true
	})
	good := registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: reg.Host}
	bad := registry.AuthConfig{Username: "me", Password: "wrong", ServerAddress: reg.Host}
	s := open(t, Config{})
	if err := s.Pull(t.Context(), ref, PullOptions{Auth: &bad}); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
	if err := s.Pull(t.Context(), ref, PullOptions{}); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "pull access denied for ") {
		t.Errorf("no password: %v", err)
	}
	wantNothingLeft(t, s)
	encoded := registry.AuthConfig{Auth: "bWU6c2VjcmV0"}
	if err := s.Pull(t.Context(), ref, PullOptions{Auth: &encoded}); err != nil {
		t.Errorf("right password: %v", err)
	}
	if r, err := s.Login(t.Context(), good); err != nil || r.Status != "Login Succeeded" {
		t.Errorf("login: %v %v", r, err)
	}
	if _, err := s.Login(t.Context(), bad); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
	if d, err := s.Distribution(t.Context(), ref, &good); err != nil || len(d.Platforms) != 1 || d.Platforms[0].Architecture != runtime.GOARCH {
		t.Errorf("distribution: %v %v", d, err)
	}
}

func TestTokenAuth(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.add(t, "app:v1", randomImage(t, runtime.GOARCH, 1, 10))
	reg.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			r.ParseForm()
			if r.Form.Get("password") != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			fmt.Fprint(w, `{"access_token":"T","token":"T","refresh_token":"R"}`)
			return true
		}
		challenge := fmt.Sprintf(`Bearer realm="%s/token",service="test"`, reg.URL)
		if r.Header.Get("Authorization") == "Bearer T" {
			if !strings.Contains(r.URL.Path, "/private/") {
				return false
			}
			challenge += `,error="insufficient_scope"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := open(t, Config{})
	good := registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "http://" + reg.Host}
	if r, err := s.Login(t.Context(), good); err != nil || r.IdentityToken != "R" {
		t.Errorf("login: %+v %v", r, err)
	}
	if err := s.Pull(t.Context(), ref, PullOptions{Auth: &good}); err != nil {
		t.Errorf("pull: %v", err)
	}
	if err := s.Pull(t.Context(), ref, PullOptions{Auth: &registry.AuthConfig{RegistryToken: "T"}}); err != nil {
		t.Errorf("pull with a token: %v", err)
	}
	if err := s.Pull(t.Context(), reg.Host+"/private/app", PullOptions{Auth: &good}); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "pull access denied for "+reg.Host+"/private/app,") {
		t.Errorf("pull of what the token does not allow: %v", err)
	}
	bad := good
	bad.Password = "x"
	if _, err := s.Login(t.Context(), bad); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestProgressNumbers(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 1, 300<<10)
	ref := reg.add(t, "app:v1", img)
	size := must(must(img.Layers())[0].Size())
	last := map[string]int64{}
	err := s.Pull(t.Context(), ref, PullOptions{Progress: func(m jsonstream.Message) {
		if m.Progress != nil && m.Progress.Current > 0 {
			if m.Progress.Current < last[m.Status] || m.Progress.Total != size {
				t.Errorf("%s: %+v after %d of %d", m.Status, m.Progress, last[m.Status], size)
			}
			last[m.Status] = m.Progress.Current
		}
	}})
	if err != nil || last["Downloading"] != size || last["Extracting"] != size {
		t.Errorf("progress ended at %v of %d: %v", last, size, err)
	}
}
