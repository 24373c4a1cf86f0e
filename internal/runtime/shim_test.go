package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/runtime/jsonlog"
	"isle/internal/runtime/shim/wire"
)

// Another isled finds what the first has started, and exits from while there
// was none; they come again until they are acknowledged.
func TestNextClient(t *testing.T) {
	w := newWorld(t, usual[0])
	log := filepath.Join(w.dir, "log")
	script := "i=0; while [ ! -e /tmp/go ]; do echo $((i=i+1)); usleep 500; done; exit 5"
	id := w.create(box{args: []string{"/bin/sh", "-c", script}, log: Log{Path: log}})
	w.must(w.c.Start(w.ctx, id))
	pid := w.shimPid()
	ctx, cancel := context.WithCancel(w.ctx)
	second := w.client()
	if w.shimPid() != pid {
		t.Error("another shim was started")
	}
	list, err := second.List(ctx)
	w.must(err)
	if len(list) != 1 || !list[0].Started || list[0].Pid == 0 || list[0].Exit != nil {
		t.Errorf("%+v", list)
	}
	eventually(t, "it counts", func() bool { st, err := os.Stat(log); return err == nil && st.Size() > 0 })
	w.must(os.WriteFile(filepath.Join(w.image(), "tmp/go"), nil, 0o644))
	w.exit(Proc{ID: id})
	e := <-second.Exits(ctx) // after the fact
	if e.ID != id || e.Code != 5 {
		t.Errorf("%+v", e)
	}
	third := w.client().Exits(ctx)
	if again := <-third; again != e {
		t.Errorf("%+v", again)
	}
	w.must(second.Ack(ctx, Proc{ID: id}))
	list, err = second.List(ctx)
	w.must(err)
	if len(list) != 1 || list[0].Exit != nil {
		t.Errorf("after ack: %+v", list)
	}
	cancel()
	if _, ok := <-third; ok {
		t.Error("an exit after ack")
	}
	checkCount(t, log)
}

// checkCount checks that a log holds 1, 2, 3, … without a gap.
func checkCount(t *testing.T, path string) int {
	t.Helper()
	n := 0
	err := jsonlog.Read(context.Background(), path, jsonlog.Options{Tail: -1}, func(e jsonlog.Entry) error {
		n++
		if string(e.Line) != strconv.Itoa(n)+"\n" {
			return fmt.Errorf("line %d is %q", n, e.Line)
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%v after %d lines", err, n)
	}
	return n
}

// A client process that is killed while it is attached and in the middle of
// requests leaves the shim and the containers as they are.
func TestClientKilled(t *testing.T) {
	if os.Getenv("ISLE_RUNTIME_TEST_VICTIM") != "" {
		victim(t)
		return
	}
	w := newWorld(t, usual[0])
	log := filepath.Join(w.dir, "log")
	id := w.create(box{args: []string{"/bin/sh", "-c", "i=0; while true; do echo $((i=i+1)); usleep 200; done"}, log: Log{Path: log}})
	w.must(w.c.Start(w.ctx, id))
	cmd := exec.Command(os.Args[0], "-test.run", "^TestClientKilled$")
	cmd.Env = append(os.Environ(), "ISLE_RUNTIME_TEST_VICTIM="+filepath.Join(w.dir, "run"), "ISLE_RUNTIME_TEST_ID="+id)
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	w.must(err)
	pid := w.shimPid()
	w.must(cmd.Process.Kill())
	cmd.Wait()
	eventually(t, "the log begins", func() bool { i, err := os.Stat(log); return err == nil && i.Size() > 0 })
	before := checkCount(t, log)
	eventually(t, "the log goes on", func() bool { return checkCount(t, log) > before+50 })
	if w.shimPid() != pid {
		t.Error("another shim")
	}
	a := w.attach(Proc{ID: id}, nil)
	eventually(t, "output for a new client", func() bool { return a.out.String() != "" })
}

func victim(t *testing.T) {
	c := &Client{conf: Config{RunDir: os.Getenv("ISLE_RUNTIME_TEST_VICTIM"), ShimPath: os.Getenv(insideEnv)}, version: wire.Version}
	p := Proc{ID: os.Getenv("ISLE_RUNTIME_TEST_ID")}
	for range 4 {
		go c.Attach(context.Background(), p, Attach{Out: io.Discard, Ready: func() { fmt.Println("attached") }})
		go func() {
			for {
				c.List(context.Background())
			}
		}()
	}
	time.Sleep(time.Minute)
	t.Error("nobody killed this process")
}

// The shim is killed: a new one takes over, the container runs on, no line of
// its log is lost, and its code is known where the kernel tells it.
func TestShimKilled(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		log := filepath.Join(w.dir, "log")
		script := "i=0; while [ ! -e /tmp/go ]; do [ -e /tmp/hush ] || echo $((i=i+1)); usleep 1000; done; exit 5"
		id := w.create(box{args: []string{"/bin/sh", "-c", script}, log: Log{Path: log}})
		w.must(w.c.Start(w.ctx, id))
		e1 := Proc{ID: id, Exec: "e1"}
		_, err := w.c.Exec(w.ctx, e1, &specs.Process{Args: []string{"/bin/sleep", "100"}, Cwd: "/", Env: []string{"PATH=/bin"}}, Stdio{})
		w.must(err)
		short := w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, short))
		pids, err := w.c.Pids(w.ctx, short)
		w.must(err)
		made := w.create(sh("exit 8"))
		ended := w.create(sh("exit 9"))
		w.must(w.c.Start(w.ctx, ended))
		w.exit(Proc{ID: ended})
		first := w.shimPid()
		hush := filepath.Join(w.image(), "tmp/hush")
		eventually(t, "there is a log", func() bool { i, err := os.Stat(log); return err == nil && i.Size() > 1000 })
		w.must(os.WriteFile(hush, nil, 0o644)) // what a shim has taken and not written when it is killed, is lost
		eventually(t, "it is quiet", func() bool {
			before := checkCount(t, log)
			time.Sleep(100 * time.Millisecond)
			return checkCount(t, log) == before
		})
		w.must(syscall.Kill(first, syscall.SIGSTOP)) // what it has not done is not done
		w.must(os.Remove(hush))
		w.must(syscall.Kill(pids[0], syscall.SIGKILL))
		eventually(t, "it has ended unseen", func() bool { return zombie(pids[0]) })
		w.must(syscall.Kill(first, syscall.SIGKILL))
		eventually(t, "another shim", func() bool { return w.shimPid() != first })
		if e := w.exit(Proc{ID: short}); e.Code != 255 {
			t.Errorf("the one that ended without a shim: %+v", e)
		}
		w.must(w.c.Start(w.ctx, made))
		if e := w.exit(Proc{ID: made}); e.Code != 8 && e.Code != 255 {
			t.Errorf("created before, started after: %+v", e)
		}
		before := checkCount(t, log)
		eventually(t, "the log goes on", func() bool { return checkCount(t, log) > before+20 })
		w.must(w.c.Kill(w.ctx, e1, 9, false))
		if e := w.exit(e1); e.Code != 137 && e.Code != 255 {
			t.Errorf("exec: %+v", e)
		}
		a := w.attach(Proc{ID: id}, nil)
		w.must(os.WriteFile(filepath.Join(w.image(), "tmp/go"), nil, 0o644))
		w.must(a.wait())
		if e := w.exit(Proc{ID: id}); e.Code != 5 && e.Code != 255 {
			t.Errorf("%+v", e)
		} else {
			t.Logf("code after adoption: %d", e.Code)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for p, list := range w.exits {
			if len(list) != 1 {
				t.Errorf("%v was told %d times: %v", p, len(list), list)
			}
		}
	})
}

// Killed in the middle of create, exec and delete: what is half made can be
// deleted, and nothing is left (which the harness checks).
func TestShimKilledAtWork(t *testing.T) {
	w := newWorld(t, usual[0])
	for round := range 6 {
		id := fmt.Sprintf("k%d-%s", round, filepath.Base(w.dir))
		req := w.request(id, sh("sleep 100"))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := w.c.Create(w.ctx, req); err == nil && w.c.Start(w.ctx, id) == nil {
				w.c.Delete(w.ctx, id)
			}
		}()
		time.Sleep(time.Duration(2+round*5) * time.Millisecond)
		pid := w.shimPid()
		w.must(syscall.Kill(pid, syscall.SIGKILL))
		<-done
		w.must(w.c.Delete(w.ctx, id))
	}
}

func TestLeavesByItself(t *testing.T) {
	dir, err := os.MkdirTemp("", "isle")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Getenv(insideEnv), "--run-dir", dir, "--patience", "50ms")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		t.Error("it stays")
	}
	if _, err := os.Stat(filepath.Join(dir, "shim.pid")); err == nil {
		t.Error("shim.pid is left")
	}
}

// A second shim of the same directory is refused.
func TestOneShim(t *testing.T) {
	w := newWorld(t, usual[0])
	out, err := exec.Command(os.Getenv(insideEnv), "--background", "--run-dir", filepath.Join(w.dir, "run")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another isle-shim is running") {
		t.Errorf("%v %s", err, out)
	}
	st, err := os.Stat(filepath.Join(w.dir, "run/shim.sock"))
	w.must(err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket %v", st.Mode())
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.shimPid()))
	w.must(err)
	f := strings.Fields(string(b)[strings.LastIndex(string(b), ")"):])
	if f[3] != strconv.Itoa(w.shimPid()) {
		t.Errorf("the shim is in session %s", f[3])
	}
}

// A shim of another version is refused with a hint, before anything is asked of it.
func TestVersions(t *testing.T) {
	dir, err := os.MkdirTemp("", "isle")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, test := range []struct {
		hello wire.Hello
		ok    bool
	}{
		{wire.Hello{Min: 1, Max: 1, Pid: 7}, true},
		{wire.Hello{Min: 1, Max: 9, Pid: 7}, true},
		{wire.Hello{Min: wire.Version + 1, Max: wire.Version + 3, Pid: 7}, false},
		{wire.Hello{Min: 0, Max: 0, Pid: 7}, false},
	} {
		os.Remove(filepath.Join(dir, shimSocket))
		l, err := net.Listen("unix", filepath.Join(dir, shimSocket))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			var req wire.Request
			wire.ReadFrame(conn, &req)
			b, _ := json.Marshal(test.hello)
			wire.WriteFrame(conn, wire.Response{Body: b})
		}()
		c := &Client{conf: Config{RunDir: dir}, version: wire.Version}
		err = c.negotiate(context.Background())
		l.Close()
		if test.ok != (err == nil) || (err != nil && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "hint:"))) {
			t.Errorf("%+v: %v", test.hello, err)
		}
	}
}

// What is not the protocol is refused and harms nothing.
func TestRubbish(t *testing.T) {
	w := newWorld(t, usual[0])
	for _, raw := range []string{"", "x", "GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff", "\x00\x00\x00\x02{}", "\x00\x00\x00\x04nope", "\x00\x00\x00\x05\"abc\""} {
		conn, err := net.Dial("unix", filepath.Join(w.dir, "run", shimSocket))
		w.must(err)
		conn.Write([]byte(raw))
		conn.(*net.UnixConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %v", raw, err)
		}
		conn.Close()
	}
	for _, req := range []wire.Request{{Version: 1, Op: "make coffee"}, {Version: 99, Op: wire.OpList}, {Version: 1, Op: wire.OpCreate, Body: json.RawMessage(`"x"`)}} {
		conn, err := net.Dial("unix", filepath.Join(w.dir, "run", shimSocket))
		w.must(err)
		var resp wire.Response
		w.must(wire.WriteFrame(conn, req))
		w.must(wire.ReadFrame(conn, &resp))
		if resp.Error == nil {
			t.Errorf("%+v was accepted", req)
		}
		conn.Close()
	}
	if _, e := w.run(sh("exit 3")); e.Code != 3 {
		t.Errorf("%+v", e)
	}
}

// A log is rotated while three writers fill it, and followed: nothing is lost
// or told twice.
func TestLogRotationUnderLoad(t *testing.T) {
	w := newWorld(t, usual[0])
	log := filepath.Join(w.dir, "log")
	id := w.create(box{args: []string{"/bin/sh", "-c", "seq 1 60000"}, log: Log{Path: log, MaxSize: 200 << 10, MaxFile: 100, Compress: true}})
	done := make(chan struct{})
	n := 0
	ended := make(chan error, 1)
	go func() {
		ended <- jsonlog.Read(w.ctx, log, jsonlog.Options{Tail: -1, Follow: true, Done: done}, func(e jsonlog.Entry) error {
			if n++; string(e.Line) != strconv.Itoa(n)+"\n" {
				return fmt.Errorf("line %d is %q", n, e.Line)
			}
			return nil
		})
	}()
	w.must(w.c.Start(w.ctx, id))
	w.exit(Proc{ID: id})
	close(done)
	if err := <-ended; err != nil || n != 60000 {
		t.Errorf("%v after %d lines", err, n)
	}
	eventually(t, "the last file is compressed", func() bool {
		plain, _ := filepath.Glob(log + ".*[0-9]")
		zipped, _ := filepath.Glob(log + ".*.gz")
		return len(plain) == 0 && len(zipped) > 10
	})
	if got := checkCount(t, log); got != 60000 {
		t.Errorf("%d lines", got)
	}
}

// What is printed last is in the log when the exit is told.
func TestOutputBeforeExit(t *testing.T) {
	w := newWorld(t, usual[0])
	for i := range 10 {
		log := filepath.Join(w.dir, fmt.Sprint("log", i))
		id := w.create(box{args: []string{"/bin/sh", "-c", "seq 1 5000; printf end"}, log: Log{Path: log}})
		w.must(w.c.Start(w.ctx, id))
		w.exit(Proc{ID: id})
		lines := readLog(t, log)
		if len(lines) != 5001 || lines[5000] != "end" {
			t.Fatalf("%d lines", len(lines))
		}
	}
}

// 100 containers at once leave no process, mount, cgroup or descriptor.
func TestHundred(t *testing.T) {
	w := newWorld(t, usual[0])
	_, _ = w.run(sh("true"))
	w.close()
	fds := fdCount(t, w.shimPid())
	w.image()
	gate := make(chan struct{}, 8)
	var all sync.WaitGroup
	for i := range 100 {
		gate <- struct{}{}
		all.Go(func() {
			defer func() { <-gate }()
			id := fmt.Sprintf("h%d-%s", i, filepath.Base(w.dir))
			if _, err := w.c.Create(w.ctx, w.request(id, sh(fmt.Sprintf("echo %d; exit %d", i, i)))); err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			if err := w.c.Start(w.ctx, id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	all.Wait()
	for i := range 100 {
		id := fmt.Sprintf("h%d-%s", i, filepath.Base(w.dir))
		if e := w.exit(Proc{ID: id}); e.Code != i {
			t.Errorf("%+v, want %d", e, i)
		}
		w.must(w.c.Delete(w.ctx, id))
		w.must(w.c.Ack(w.ctx, Proc{ID: id}))
	}
	eventually(t, "as many descriptors as before", func() bool { return fdCount(t, w.shimPid()) <= fds })
	if kids := children(t, w.shimPid()); len(kids) > 0 {
		t.Errorf("children are left: %v", kids)
	}
	if ns := namespaces(t, w.shimPid()); len(ns) != 1 {
		t.Errorf("mount namespaces are left: %v", ns)
	}
}

func fdCount(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func children(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, f := range files {
		b, _ := os.ReadFile(f)
		kids = append(kids, strings.Fields(string(b))...)
	}
	return kids
}

// Fifty idle containers add little to the shim.
func TestMemory(t *testing.T) {
	w := newWorld(t, usual[0])
	w.must(w.c.Start(w.ctx, w.create(sh("exec sleep 1000"))))
	before := pss(t, w.shimPid())
	const n = 50
	for i := range n {
		id := w.create(box{args: []string{"/bin/sleep", "1000"}, log: Log{Path: filepath.Join(w.dir, fmt.Sprint("log", i))}})
		w.must(w.c.Start(w.ctx, id))
	}
	after := pss(t, w.shimPid())
	t.Logf("the shim: %d KiB with 1 container, %d with %d: %d each", before, after, n+1, (after-before)/n)
	const slack = 3 << 10 // the heap's own rhythm
	if after-before > n*64+slack {
		t.Errorf("%d KiB for %d containers", after-before, n)
	}
}

func pss(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}
