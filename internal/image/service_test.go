package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/google/go-containerregistry/pkg/name"
	ggcrregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ggcrremote "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/types/jsonstream"
)

// TestMain runs the tests in a mount namespace of their own: what they mount
// goes with the process.
func TestMain(m *testing.M) {
	const inside = "ISLE_TEST_MOUNTNS"
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	if os.Getuid() != 0 {
		fmt.Println("SKIP: needs root for overlay mounts")
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func open(t *testing.T, c Config) *Service {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.RunDir == "" {
		c.RunDir = t.TempDir()
	}
	if c.Toolbox == "" {
		c.Toolbox = filepath.Join(t.TempDir(), "isle-toolbox")
		write(t, c.Toolbox, "#!not really a program\n")
	}
	c.Log = slog.New(testLog(t))
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

// leftovers is what the store has on disk and in its records.
func leftovers(t *testing.T, s *Service) []string {
	t.Helper()
	ctx := s.context(t.Context())
	out := []string{}
	walk := func(dir, kind string, skip func(string) bool) {
		err := filepath.WalkDir(filepath.Join(s.cfg.Dir, dir), func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !skip(p) {
				out = append(out, kind+" "+strings.TrimPrefix(p, s.cfg.Dir))
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	walk("image/content", "file", func(string) bool { return false })
	walk("image/snapshots", "file", func(p string) bool { return strings.HasSuffix(p, "metadata.db") })
	walk("rootfs", "file", func(string) bool { return false })
	if err := s.content.Walk(ctx, func(i content.Info) error {
		out = append(out, "content "+i.Digest.String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.snap.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		out = append(out, "snapshot "+i.Name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ls, err := s.leases.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range ls {
		out = append(out, "lease "+l.ID)
	}
	st, err := s.content.ListStatuses(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range st {
		out = append(out, "ingest "+i.Ref)
	}
	return out
}

func wantNothingLeft(t *testing.T, s *Service) {
	t.Helper()
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(l, "\n"))
	}
}

// testRegistry is a registry with a layer that can be made to misbehave.
type testRegistry struct {
	*httptest.Server
	Host string

	mu     sync.Mutex
	fault  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	asked  []string
	ranges []string
}

func newRegistry(t *testing.T) *testRegistry {
	t.Helper()
	reg := ggcrregistry.New(ggcrregistry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	tr := &testRegistry{}
	tr.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.mu.Lock()
		tr.asked = append(tr.asked, r.Method+" "+r.URL.Path)
		if rg := r.Header.Get("Range"); rg != "" {
			tr.ranges = append(tr.ranges, rg)
		}
		fault := tr.fault
		tr.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		reg.ServeHTTP(w, r)
	}))
	t.Cleanup(tr.Close)
	tr.Host = strings.TrimPrefix(tr.URL, "http://")
	return tr
}

func (tr *testRegistry) setFault(f func(http.ResponseWriter, *http.Request) bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.fault, tr.asked, tr.ranges = f, nil, nil
}

func (tr *testRegistry) add(t *testing.T, ref string, img v1.Image) string {
	t.Helper()
	full := tr.Host + "/" + ref
	n, err := name.ParseReference(full, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcrremote.Write(n, img); err != nil {
		t.Fatal(err)
	}
	return full
}

func (tr *testRegistry) addIndex(t *testing.T, ref string, idx v1.ImageIndex) string {
	t.Helper()
	full := tr.Host + "/" + ref
	n, err := name.ParseReference(full, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcrremote.WriteIndex(n, idx); err != nil {
		t.Fatal(err)
	}
	return full
}

// randomImage has n layers of size bytes, for linux/arch.
func randomImage(t *testing.T, arch string, n, size int) v1.Image {
	t.Helper()
	img, err := random.Image(int64(size), int64(n))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", arch
	cfg.Config.Labels = map[string]string{"arch": arch}
	cfg.Config.Cmd = []string{"true"}
	img, err = mutate.ConfigFile(img, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// said collects progress as one line for each message, without moving numbers.
type said struct{ lines []string }

func (s *said) hear(m jsonstream.Message) {
	if m.Progress != nil && m.Progress.Current > 0 {
		return
	}
	b := bytes.TrimSpace([]byte(m.Stream + m.Status))
	line := string(b)
	if m.ID != "" {
		line = m.ID + ": " + line
	}
	if m.Aux != nil {
		line = "aux " + string(*m.Aux)
	}
	s.lines = append(s.lines, line)
}

func (s *said) String() string { return strings.Join(s.lines, "\n") }

func pullNow(t *testing.T, s *Service, ref string) Image {
	t.Helper()
	if err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	return resolve(t, s, ref)
}

func resolve(t *testing.T, s *Service, ref string) Image {
	t.Helper()
	img, err := s.Resolve(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testLog(t *testing.T) slog.Handler {
	if !testing.Verbose() {
		return slog.DiscardHandler
	}
	return slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})
}
