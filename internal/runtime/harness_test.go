package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const insideEnv = "ISLE_RUNTIME_TEST_SHIM"

// TestMain builds isle-shim and runs the tests in mount and network namespaces
// of their own.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	os.Exit(outside())
}

func outside() int {
	dir, err := os.MkdirTemp("", "isle-rt")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "isle-shim")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "isle/cmd/isle-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// world is an isled's view of a shim of its own.
type world struct {
	t       testing.TB
	dir     string
	group   string // parent cgroup of the containers
	c       *Client
	runtime string
	ctx     context.Context

	mu    sync.Mutex
	exits map[Proc][]Exit
	seq   int
}

// both runs a test with every runtime there is.
func both(t *testing.T, fn func(t *testing.T, w *world)) {
	for _, name := range usual {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("not supported: %v", err)
			}
			fn(t, newWorld(t, name))
		})
	}
}

// newWorld is a client with a fresh run directory, whose shim is gone and has
// left nothing when the test ends.
func newWorld(t testing.TB, name string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "isle")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, dir: dir, ctx: ctx, runtime: name, exits: map[Proc][]Exit{}, group: "/" + filepath.Base(dir)}
	w.c = w.client()
	done := make(chan struct{})
	go func() { defer close(done); w.collect(ctx, w.c) }()
	t.Cleanup(func() {
		w.close()
		cancel()
		<-done
		w.gone()
	})
	return w
}

func (w *world) client() *Client {
	w.t.Helper()
	c, err := New(Config{RunDir: filepath.Join(w.dir, "run"), ShimPath: os.Getenv(insideEnv), Default: w.runtime, Log: slog.New(slog.NewTextHandler(testWriter{w.t}, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) collect(ctx context.Context, c *Client) {
	for e := range c.Exits(ctx) {
		w.mu.Lock()
		w.exits[e.Proc] = append(w.exits[e.Proc], e)
		w.mu.Unlock()
	}
}

func (w *world) close() {
	list, err := w.c.List(context.Background())
	if err != nil {
		w.t.Error(err)
	}
	for _, s := range list {
		if err := w.c.Delete(context.Background(), s.ID); err != nil {
			w.t.Error(err)
		}
		w.c.Ack(context.Background(), s.Proc)
	}
	if list, err = w.c.List(context.Background()); err != nil {
		w.t.Error(err)
	}
	for _, s := range list {
		w.c.Ack(context.Background(), s.Proc)
	}
}

// gone ends the shim and checks that nothing is left.
func (w *world) gone() {
	t := w.t
	pid := w.shimPid()
	syscall.Kill(pid, syscall.SIGTERM)
	eventually(t, "the shim leaves", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	if t.Failed() {
		if b, err := os.ReadFile(filepath.Join(w.dir, "run/shim.log")); err == nil {
			t.Logf("shim.log:\n%s", b)
		}
	}
	for _, dir := range []string{"shim/containers", "shim/exits", "oci/" + w.runtime} {
		left, _ := filepath.Glob(filepath.Join(w.dir, "run", dir, "*"))
		if len(left) > 0 {
			t.Errorf("left in the run directory: %v", left)
		}
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + w.group + "/*")
	for _, l := range left {
		if st, err := os.Stat(l); err == nil && st.IsDir() {
			t.Errorf("left cgroup %s", l)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + w.group)
	for _, g := range append(groups, "/sys/fs/cgroup"+w.group) {
		os.Remove(g)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(b, []byte(w.dir)) {
		t.Errorf("left mounts:\n%s", b)
	}
	os.RemoveAll(w.dir)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func (w *world) shimPid() int {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "run/shim.pid"))
	if err != nil {
		w.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		w.t.Fatal(err)
	}
	return pid
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it does not come to this: %s", what)
}

// box is a container to be made: a busybox in a root file system of its own.
type box struct {
	args   []string
	stdio  Stdio
	log    Log
	mem    int64
	shared bool
	edit   func(*specs.Spec)
	req    func(*Create)
}

func sh(script string) box { return box{args: []string{"/bin/sh", "-c", script}} }

// create makes the container and returns its id.
func (w *world) create(b box) string {
	w.t.Helper()
	id, err := w.tryCreate(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) tryCreate(b box) (string, error) {
	w.t.Helper()
	w.mu.Lock()
	w.seq++
	id := fmt.Sprintf("c%d-%s", w.seq, filepath.Base(w.dir))
	w.mu.Unlock()
	req := w.request(id, b)
	_, err := w.c.Create(w.ctx, req)
	return id, err
}

func (w *world) request(id string, b box) Create {
	w.t.Helper()
	bundle := filepath.Join(w.dir, id)
	w.must(os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755))
	w.must(os.MkdirAll(filepath.Join(bundle, "upper"), 0o755))
	w.must(os.MkdirAll(filepath.Join(bundle, "work"), 0o755))
	spec := w.spec(id, b)
	if b.edit != nil {
		b.edit(spec)
	}
	raw, err := json.Marshal(spec)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(bundle, "config.json"), raw, 0o644))
	rt, err := w.c.Find("")
	w.must(err)
	req := Create{ID: id, Bundle: bundle, Runtime: rt, Stdio: b.stdio, Log: b.log, KeepShared: b.shared,
		CgroupPath: filepath.Join("/sys/fs/cgroup/memory", w.group, id),
		Rootfs:     []Mount{{Type: "bind", Source: w.image(), Options: []string{"rbind"}}}}
	if b.req != nil {
		b.req(&req)
	}
	return req
}

// image is a directory with busybox, under all the names that tests use.
func (w *world) image() string {
	dir := filepath.Join(w.dir, "image")
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "sbin"} {
		w.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	b, err := os.ReadFile("/bin/busybox")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755))
	for _, name := range strings.Fields("sh true false sleep cat echo ls stty head seq dd kill tty yes id readlink setsid tr wc usleep") {
		w.must(os.Symlink("busybox", filepath.Join(dir, "bin", name)))
	}
	w.must(os.WriteFile(filepath.Join(dir, "bin/plain"), []byte("x"), 0o644))
	return dir
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

func (w *world) spec(id string, b box) *specs.Spec {
	s := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: b.args, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: b.stdio.Terminal,
			Capabilities: &specs.LinuxCapabilities{}},
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}}},
		Linux: &specs.Linux{CgroupsPath: filepath.Join(w.group, id), Resources: &specs.LinuxResources{}},
	}
	if b.mem > 0 {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &b.mem}
	}
	for _, n := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
	}
	return s
}

// exit waits for the exit of a process.
func (w *world) exit(p Proc) Exit {
	w.t.Helper()
	var e Exit
	eventually(w.t, fmt.Sprintf("exit of %v", p), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.exits[p]); n > 0 {
			e = w.exits[p][n-1]
		}
		return e.ID != ""
	})
	return e
}

// run makes, starts and waits; it returns the output and the exit.
func (w *world) run(b box) (string, Exit) {
	w.t.Helper()
	id := w.create(b)
	a := w.attach(Proc{ID: id}, nil)
	w.must(w.c.Start(w.ctx, id))
	e := w.exit(Proc{ID: id})
	w.must(a.wait())
	return a.out.String(), e
}

// joined is an attached client.
type joined struct {
	out, errs lockedBuffer
	done      chan error
	cancel    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) attach(p Proc, a *Attach) *joined {
	w.t.Helper()
	if a == nil {
		a = &Attach{}
	}
	j := &joined{done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(w.ctx)
	j.cancel = cancel
	req := *a
	ready := make(chan struct{})
	req.Out, req.Err, req.Ready = &j.out, &j.errs, func() { close(ready) }
	go func() { j.done <- w.c.Attach(ctx, p, req) }()
	select {
	case <-ready:
	case err := <-j.done:
		w.t.Fatalf("attach: %v", err)
	}
	return j
}

func (j *joined) wait() error {
	select {
	case err := <-j.done:
		j.done <- err
		return err
	case <-time.After(20 * time.Second):
		return fmt.Errorf("attach does not end")
	}
}
