package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestExitCodeAndOutput(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(sh("echo out; echo err >&2; exit 42"))
		a := w.attach(Proc{ID: id}, nil)
		w.must(w.c.Start(w.ctx, id))
		e := w.exit(Proc{ID: id})
		w.must(a.wait())
		if e.Code != 42 || e.OOMKilled || e.At.IsZero() {
			t.Errorf("exit %+v", e)
		}
		if a.out.String() != "out\n" || a.errs.String() != "err\n" {
			t.Errorf("stdout %q stderr %q", a.out.String(), a.errs.String())
		}
		if err := w.c.Start(w.ctx, id); err == nil {
			t.Error("started twice")
		}
		w.must(w.c.Delete(w.ctx, id))
		w.must(w.c.Delete(w.ctx, id))
	})
}

func TestSignalCode(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, id))
		w.must(w.c.Kill(w.ctx, Proc{ID: id}, 9, false))
		if e := w.exit(Proc{ID: id}); e.Code != 137 {
			t.Errorf("code %d", e.Code)
		}
		if err := w.c.Kill(w.ctx, Proc{ID: id}, 9, false); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("kill of an ended process: %v", err)
		}
		if err := w.c.Kill(w.ctx, Proc{ID: "nobody"}, 9, false); !errdefs.IsNotFound(err) {
			t.Errorf("kill of nobody: %v", err)
		}
	})
}

// The words decide Docker's exit codes 126 and 127.
func TestCommandErrors(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		running := w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, running))
		for _, test := range []struct{ command, words string }{
			{"nope", `exec: "nope": executable file not found in $PATH`},
			{"/bin/nope", "no such file or directory|executable file not found"},
			{"/proc", "permission denied|is a directory"},
			{"/bin/plain", "permission denied|executable file not found"},
		} {
			_, err := w.tryCreate(box{args: []string{test.command}})
			checkWords(t, "create "+test.command, err, "failed to create task for container: failed to create shim task: OCI runtime create failed: ", test.words)
			_, err = w.c.Exec(w.ctx, Proc{ID: running, Exec: "e1"}, &specs.Process{Args: []string{test.command}, Cwd: "/", Env: []string{"PATH=/bin"}}, Stdio{})
			checkWords(t, "exec "+test.command, err, "OCI runtime exec failed: ", test.words)
		}
	})
}

func checkWords(t *testing.T, what string, err error, prefix, words string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), prefix) || !errdefs.IsInvalidArgument(err) {
		t.Errorf("%s: %v", what, err)
		return
	}
	for alternative := range strings.SplitSeq(words, "|") {
		if strings.Contains(err.Error(), alternative) {
			return
		}
	}
	t.Errorf("%s: %v: want %s", what, err, words)
}

func TestRootfsIsNotInTheHostsMountTable(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		for _, shared := range []bool{false, true} {
			before := mountTable(t, "self")
			threads := taskCount(t, w.shimPid())
			id := w.create(box{args: []string{"/bin/sleep", "100"}, shared: shared})
			w.must(w.c.Start(w.ctx, id))
			for _, who := range []string{"self", strconv.Itoa(w.shimPid())} {
				if now := mountTable(t, who); now != before {
					t.Errorf("mounts of %s (shared %v):\n%s\nbefore:\n%s", who, shared, now, before)
				}
			}
			for range 5 {
				w.create(sh("true"))
			}
			eventually(t, "threads thrown away", func() bool { return taskCount(t, w.shimPid()) < threads+5 })
			eventually(t, "one mount namespace", func() bool { return len(namespaces(t, w.shimPid())) == 1 })
		}
	})
}

func mountTable(t *testing.T, who string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + who + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func taskCount(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func namespaces(t *testing.T, pid int) map[string]bool {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/mnt", pid))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, l := range links {
		if name, err := os.Readlink(l); err == nil {
			set[name] = true
		}
	}
	return set
}

// A volume that propagates to the host still does, though the root file system
// does not.
func TestKeepShared(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		vol := filepath.Join(w.dir, "vol")
		w.must(os.Mkdir(vol, 0o755))
		w.must(unix.Mount("vol", vol, "tmpfs", 0, ""))
		defer unix.Unmount(vol, unix.MNT_DETACH)
		w.must(unix.Mount("", vol, "", unix.MS_SHARED, ""))
		w.must(os.Mkdir(filepath.Join(vol, "m"), 0o755))
		// isled's and the shim's namespaces are one; the shim was started after us.
		id := w.create(box{args: []string{"/bin/sh", "-c", "/bin/busybox mount -t tmpfs x /vol/m && echo mounted; sleep 100"}, shared: true, edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind", "rshared"}})
			s.Linux.RootfsPropagation = "shared"
			caps := []string{"CAP_SYS_ADMIN"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		}})
		a := w.attach(Proc{ID: id}, nil)
		w.must(w.c.Start(w.ctx, id))
		eventually(t, "the mount is made", func() bool { return strings.Contains(a.out.String(), "mounted") })
		if table := mountTable(t, "self"); !strings.Contains(table, vol+"/m") {
			t.Errorf("the mount has not come to the host:\n%s", table)
		}
		unix.Unmount(filepath.Join(vol, "m"), unix.MNT_DETACH)
	})
}

// CVE-2024-21626: no descriptor of ours is open in a container.
func TestCVE_2024_21626(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(box{args: []string{"/bin/sleep", "100"}})
		w.must(w.c.Start(w.ctx, id))
		list, err := w.c.List(w.ctx)
		w.must(err)
		fds := func(pid int) (bad []string) {
			links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			for _, l := range links {
				to, _ := os.Readlink(l)
				if n, _ := strconv.Atoi(filepath.Base(l)); n > 2 {
					bad = append(bad, to)
				}
			}
			return bad
		}
		eventually(t, "process 1 is the command", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", list[0].Pid))
			return strings.TrimSpace(string(b)) == "sleep"
		})
		if bad := fds(list[0].Pid); len(bad) > 0 {
			t.Errorf("open in process 1: %v", bad)
		}
		pid, err := w.c.Exec(w.ctx, Proc{ID: id, Exec: "e"}, &specs.Process{Args: []string{"/bin/sleep", "100"}, Cwd: "/", Env: []string{"PATH=/bin"}}, Stdio{})
		w.must(err)
		eventually(t, "the session is the command", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return strings.TrimSpace(string(b)) == "sleep"
		})
		if bad := fds(pid); len(bad) > 0 {
			t.Errorf("open in an exec session: %v", bad)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", list[0].Pid))
		w.must(err)
		if !strings.Contains(string(status), "SigIgn:\t0000000000000000") {
			t.Errorf("signals are ignored in the container:\n%s", status)
		}
	})
}

// CVE-2019-5736: the init is a copy that a container cannot write.
func TestCVE_2019_5736(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		program, err := w.c.InitPath()
		w.must(err)
		st, err := os.Stat(program)
		w.must(err)
		if st.Mode().Perm() != 0o555 || program == os.Getenv(insideEnv) {
			t.Errorf("%s has mode %v", program, st.Mode())
		}
		caps := []string{"CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_FOWNER"}
		out, e := w.run(box{args: []string{"/sbin/docker-init", "--", "/bin/sh", "-c", "(echo x > /proc/1/exe) 2>/dev/null || echo refused; exit 3"}, edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sbin/docker-init", Type: "bind", Source: program, Options: []string{"bind", "ro"}})
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		}})
		if out != "refused\n" || e.Code != 3 {
			t.Errorf("%q, %+v", out, e)
		}
	})
}

func TestInit(t *testing.T) {
	w := newWorld(t, usual[0])
	program, err := w.c.InitPath()
	w.must(err)
	with := func(script string) box {
		return box{args: []string{"/sbin/docker-init", "--", "/bin/sh", "-c", script}, edit: func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sbin/docker-init", Type: "bind", Source: program, Options: []string{"bind", "ro"}})
		}}
	}
	// Orphans are reaped: none is left as a zombie.
	out, e := w.run(with(`for i in 1 2 3 4 5; do (sleep 0.01 & ); done; sleep 0.3; cat /proc/[0-9]*/stat | while read p n s r; do [ "$s" = Z ] && echo zombie; done; exit 5`))
	if out != "" || e.Code != 5 {
		t.Errorf("%q, %+v", out, e)
	}
	id := w.create(with(`trap "echo got; exit 9" TERM; echo ready; while true; do sleep 0.02; done`))
	a := w.attach(Proc{ID: id}, nil)
	w.must(w.c.Start(w.ctx, id))
	eventually(t, "ready", func() bool { return strings.Contains(a.out.String(), "ready") })
	w.must(w.c.Kill(w.ctx, Proc{ID: id}, 15, false))
	if e := w.exit(Proc{ID: id}); e.Code != 9 {
		t.Errorf("after SIGTERM: %+v", e)
	}
	if _, e := w.run(box{args: []string{"/sbin/docker-init", "--", "nope"}, edit: with("").edit}); e.Code != 127 {
		t.Errorf("missing command: %+v", e)
	}
}

func TestStdin(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		// Half-close ends the process's input and not its output.
		id := w.create(box{args: []string{"/bin/sh", "-c", "cat; echo after"}, stdio: Stdio{Stdin: true, CloseStdin: true}})
		a := w.attach(Proc{ID: id}, &Attach{In: strings.NewReader("hello\n")})
		w.must(w.c.Start(w.ctx, id))
		w.must(a.wait())
		if a.out.String() != "hello\nafter\n" {
			t.Errorf("%q", a.out.String())
		}
		// Without CloseStdin a second client goes on where the first has left.
		id = w.create(box{args: []string{"/bin/head", "-n", "2"}, stdio: Stdio{Stdin: true}})
		a = w.attach(Proc{ID: id}, &Attach{In: strings.NewReader("one\n")})
		w.must(w.c.Start(w.ctx, id))
		time.Sleep(20 * time.Millisecond)
		w.attach(Proc{ID: id}, &Attach{In: strings.NewReader("two\n")})
		w.must(a.wait())
		if a.out.String() != "one\ntwo\n" {
			t.Errorf("%q", a.out.String())
		}
		// No input is the end of input.
		id = w.create(box{args: []string{"/bin/cat"}, stdio: Stdio{Stdin: true, CloseStdin: true}})
		a = w.attach(Proc{ID: id}, &Attach{In: strings.NewReader("")})
		w.must(w.c.Start(w.ctx, id))
		w.must(a.wait())
	})
}

func TestTwoClients(t *testing.T) {
	w := newWorld(t, usual[0])
	id := w.create(sh("seq 1 2000"))
	a, b := w.attach(Proc{ID: id}, nil), w.attach(Proc{ID: id}, nil)
	w.must(w.c.Start(w.ctx, id))
	w.must(errors.Join(a.wait(), b.wait()))
	if a.out.String() != b.out.String() || strings.Count(a.out.String(), "\n") != 2000 {
		t.Errorf("%d and %d bytes", len(a.out.String()), len(b.out.String()))
	}
	// Who comes after the end is told so.
	late := w.attach(Proc{ID: id}, nil)
	w.must(late.wait())
	if err := w.c.Attach(w.ctx, Proc{ID: "nobody"}, Attach{Out: io.Discard}); !errdefs.IsNotFound(err) {
		t.Errorf("attach to nobody: %v", err)
	}
}

// stuck does not read until it is let go.
type stuck struct {
	lockedBuffer
	gate chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) { <-s.gate; return s.lockedBuffer.Write(p) }

func TestSlowClient(t *testing.T) {
	w := newWorld(t, usual[0])
	const size = 6 << 20
	log := filepath.Join(w.dir, "log")
	id := w.create(box{args: []string{"/bin/sh", "-c", "while [ ! -e /tmp/go ]; do usleep 1000; done; yes a-line-of-sixty-four-bytes-with-its-newline-as-programs-write-them | head -c 6291456"}, log: Log{Path: log}})
	w.must(w.c.Start(w.ctx, id))
	slow := &stuck{gate: make(chan struct{})}
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- w.c.Attach(w.ctx, Proc{ID: id}, Attach{Out: slow, Ready: func() { close(ready) }}) }()
	<-ready
	w.must(os.WriteFile(filepath.Join(w.image(), "tmp/go"), nil, 0o644))
	if e := w.exit(Proc{ID: id}); e.Code != 0 {
		t.Errorf("a client that watches held the container up: %+v", e)
	}
	if n := logged(t, log); n != size {
		t.Errorf("%d bytes in the log", n)
	}
	close(slow.gate)
	if err := <-ended; err == nil {
		t.Error("the slow client was not told that it was dropped")
	}
}

// The client that was there first gets every byte, however slowly it reads.
func TestSlowFirstClient(t *testing.T) {
	w := newWorld(t, usual[0])
	id := w.create(sh("yes | head -c 6291456"))
	slow := &stuck{gate: make(chan struct{})}
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- w.c.Attach(w.ctx, Proc{ID: id}, Attach{Out: slow, Ready: func() { close(ready) }}) }()
	<-ready
	w.must(w.c.Start(w.ctx, id))
	time.Sleep(100 * time.Millisecond)
	close(slow.gate)
	w.must(<-ended)
	if n := len(slow.String()); n != 6<<20 {
		t.Errorf("%d bytes", n)
	}
	// Its death ends its hold.
	id = w.create(sh("yes | head -c 6291456"))
	dead := w.attach(Proc{ID: id}, &Attach{})
	w.must(w.c.Start(w.ctx, id))
	dead.cancel()
	w.exit(Proc{ID: id})
}

func TestTerminal(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		if err := w.c.Resize(w.ctx, Proc{ID: "later"}, 1, 1); !errdefs.IsNotFound(err) {
			t.Errorf("resize of nothing: %v", err)
		}
		id := w.create(box{args: []string{"/bin/sh", "-c", "stty size; read x; stty size; echo got $x; exit 4"}, stdio: Stdio{Terminal: true, Stdin: true, Height: 11, Width: 33}})
		in, typed := io.Pipe()
		a := w.attach(Proc{ID: id}, &Attach{In: in, DetachKeys: []byte{16, 17}})
		w.must(w.c.Resize(w.ctx, Proc{ID: id}, 22, 44)) // created, not started
		w.must(w.c.Resize(w.ctx, Proc{ID: id}, 12, 34))
		w.must(w.c.Start(w.ctx, id))
		eventually(t, "first size", func() bool { return strings.Contains(a.out.String(), "12 34") })
		w.must(w.c.Resize(w.ctx, Proc{ID: id}, 50, 132))
		typed.Write([]byte("abc\n"))
		w.must(a.wait())
		if e := w.exit(Proc{ID: id}); e.Code != 4 {
			t.Errorf("%+v", e)
		}
		if out := a.out.String(); !strings.Contains(out, "50 132\r\n") || !strings.Contains(out, "got abc\r\n") {
			t.Errorf("%q", out)
		}
		typed.Close()
		if err := w.c.Resize(w.ctx, Proc{ID: id}, 1, 1); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("resize after the end: %v", err)
		}
	})
}

func TestDetach(t *testing.T) {
	w := newWorld(t, usual[0])
	id := w.create(box{args: []string{"/bin/sh", "-c", "read x; echo got $x"}, stdio: Stdio{Terminal: true, Stdin: true}})
	w.must(w.c.Start(w.ctx, id))
	in, typed := io.Pipe()
	a := w.attach(Proc{ID: id}, &Attach{In: in, DetachKeys: []byte{16, 17}})
	typed.Write([]byte{16})
	typed.Write([]byte{17})
	if err := a.wait(); !errors.Is(err, ErrDetached) {
		t.Fatalf("%v", err)
	}
	b := w.attach(Proc{ID: id}, &Attach{In: strings.NewReader("x\n")})
	w.must(b.wait())
	if !strings.Contains(b.out.String(), "got x") {
		t.Errorf("%q", b.out.String())
	}
}

func TestExec(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, id))
		exec := func(name string, stdio Stdio, a *Attach, args ...string) (*joined, Proc) {
			p := Proc{ID: id, Exec: name}
			a.Wait = true
			j := w.attach(p, a)
			_, err := w.c.Exec(w.ctx, p, &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: stdio.Terminal}, stdio)
			w.must(err)
			return j, p
		}
		j, p := exec("e1", Stdio{Stdin: true, CloseStdin: true}, &Attach{In: strings.NewReader("in\n")}, "/bin/sh", "-c", "cat; echo err >&2; exit 6")
		w.must(j.wait())
		if e := w.exit(p); e.Code != 6 || j.out.String() != "in\n" || j.errs.String() != "err\n" {
			t.Errorf("%+v %q %q", e, j.out.String(), j.errs.String())
		}
		j, p = exec("e2", Stdio{Terminal: true, Stdin: true, Height: 7, Width: 77}, &Attach{In: strings.NewReader("")}, "/bin/sh", "-c", "tty; stty size; exit 3")
		w.must(j.wait())
		if e := w.exit(p); e.Code != 3 || !strings.Contains(j.out.String(), "/dev/pts/") || !strings.Contains(j.out.String(), "7 77") {
			t.Errorf("%+v %q", e, j.out.String())
		}
		// A process that stays behind does not hold the exit up for long.
		j, p = exec("e3", Stdio{}, &Attach{}, "/bin/sh", "-c", "sleep 100 & exit 2")
		if e := w.exit(p); e.Code != 2 {
			t.Errorf("%+v", e)
		}
		w.must(j.wait())
		// An exec dies with its container.
		_, p = exec("e4", Stdio{}, &Attach{}, "/bin/sleep", "100")
		w.must(w.c.Delete(w.ctx, id))
		if e := w.exit(p); e.Code != 137 {
			t.Errorf("%+v", e)
		}
		for _, p := range []Proc{{id, "e1"}, {id, "e2"}, {id, "e3"}, {id, "e4"}, {ID: id}} {
			w.must(w.c.Ack(w.ctx, p))
		}
		list, err := w.c.List(w.ctx)
		w.must(err)
		if len(list) != 0 {
			t.Errorf("left: %+v", list)
		}
	})
}

// No code of a short command is lost: crun's "run --detach" would.
func TestExecCodes(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, id))
		const n = 200
		gate := make(chan struct{}, 4)
		var all sync.WaitGroup
		for i := range n {
			gate <- struct{}{}
			all.Go(func() {
				defer func() { <-gate }()
				args := []string{"/bin/true"}
				if i%2 == 1 {
					args = []string{"/bin/sh", "-c", "exit 7"}
				}
				p := Proc{ID: id, Exec: fmt.Sprint("e", i)}
				if _, err := w.c.Exec(w.ctx, p, &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}, Stdio{}); err != nil {
					t.Errorf("%v: %v", p, err)
				}
			})
		}
		all.Wait()
		for i := range n {
			p := Proc{ID: id, Exec: fmt.Sprint("e", i)}
			if e := w.exit(p); e.Code != i%2*7 {
				t.Errorf("%+v", e)
			}
			w.must(w.c.Ack(w.ctx, p))
		}
	})
}

func TestOOM(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		_, e := w.run(box{args: []string{"/bin/sh", "-c", `x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done`}, mem: 8 << 20})
		if e.Code != 137 || !e.OOMKilled {
			t.Errorf("%+v", e)
		}
	})
}

func TestPauseUpdatePidsKillAll(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		id := w.create(box{args: []string{"/bin/sh", "-c", "sleep 100 & while true; do echo; usleep 2000; done"}, mem: 50 << 20})
		a := w.attach(Proc{ID: id}, nil)
		w.must(w.c.Start(w.ctx, id))
		eventually(t, "it runs", func() bool { return a.out.String() != "" })
		w.must(w.c.Pause(w.ctx, id))
		time.Sleep(20 * time.Millisecond)
		frozen := a.out.String()
		time.Sleep(50 * time.Millisecond)
		if a.out.String() != frozen {
			t.Error("it runs while paused")
		}
		w.must(w.c.Resume(w.ctx, id))
		eventually(t, "it runs again", func() bool { return a.out.String() != frozen })
		limit := int64(60 << 20)
		w.must(w.c.Update(w.ctx, id, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", w.group, id, "memory.limit_in_bytes"))
		w.must(err)
		if strings.TrimSpace(string(b)) != fmt.Sprint(limit) {
			t.Errorf("limit %s", b)
		}
		pids, err := w.c.Pids(w.ctx, id)
		w.must(err)
		if len(pids) < 2 {
			t.Errorf("pids %v", pids)
		}
		w.must(w.c.Kill(w.ctx, Proc{ID: id}, 9, true))
		if e := w.exit(Proc{ID: id}); e.Code != 137 {
			t.Errorf("%+v", e)
		}
		// A paused container can be deleted.
		id = w.create(sh("sleep 100"))
		w.must(w.c.Start(w.ctx, id))
		w.must(w.c.Pause(w.ctx, id))
		w.must(w.c.Delete(w.ctx, id))
		w.exit(Proc{ID: id})
	})
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, usual[0])
	id := w.create(sh("sleep 100"))
	req := w.request(id, sh("true"))
	if _, err := w.c.Create(w.ctx, req); !errdefs.IsConflict(err) {
		t.Errorf("create of what exists: %v", err)
	}
	for _, bad := range []string{"", "../x", "a/b", ".x", strings.Repeat("a", 200)} {
		req.ID = bad
		if _, err := w.c.Create(w.ctx, req); !errdefs.IsInvalidArgument(err) {
			t.Errorf("id %q: %v", bad, err)
		}
		if err := w.c.Attach(w.ctx, Proc{ID: "x", Exec: bad + "/"}, Attach{Wait: true}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("exec id %q: %v", bad, err)
		}
	}
	if _, err := w.c.Find("no-such-runtime"); !errdefs.IsInvalidArgument(err) || err.Error() != "unknown or invalid runtime name: no-such-runtime" {
		t.Errorf("%v", err)
	}
	// A root file system that cannot be mounted leaves nothing.
	_, err := w.tryCreate(box{args: []string{"/bin/true"}, req: func(c *Create) { c.Rootfs[0].Source = "/nonexistent" }})
	if err == nil {
		t.Error("created without a root file system")
	}
	list, err := w.c.List(w.ctx)
	w.must(err)
	if len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

func TestManyLayers(t *testing.T) {
	w := newWorld(t, usual[0])
	snapshots := filepath.Join(w.dir, "snapshots-with-a-rather-long-name-so-that-a-page-is-filled-by-few")
	base := filepath.Join(snapshots, "base", "fs")
	w.must(os.MkdirAll(filepath.Dir(base), 0o755))
	w.must(os.Rename(w.image(), base))
	layers := []string{base}
	for i := range 60 {
		d := filepath.Join(snapshots, strconv.Itoa(i), "fs")
		w.must(os.MkdirAll(d, 0o755))
		w.must(os.WriteFile(filepath.Join(d, "layer"), []byte(strconv.Itoa(i)), 0o644))
		layers = append([]string{d}, layers...)
	}
	tmp := filepath.Join(w.dir, "ovl")
	w.must(os.Mkdir(tmp, 0o755))
	w.must(unix.Mount("ovl", tmp, "tmpfs", 0, ""))
	defer unix.Unmount(tmp, unix.MNT_DETACH)
	up, work := filepath.Join(tmp, "up"), filepath.Join(tmp, "work")
	w.must(errors.Join(os.Mkdir(up, 0o755), os.Mkdir(work, 0o755)))
	b := sh("cat /layer; echo new > /new")
	b.req = func(c *Create) {
		c.Rootfs = []Mount{{Type: "overlay", Source: "overlay", Options: []string{"workdir=" + work, "upperdir=" + up, "lowerdir=" + strings.Join(layers, ":")}}}
	}
	out, e := w.run(b)
	if out != "59" || e.Code != 0 {
		t.Errorf("%q %+v", out, e)
	}
	if _, err := os.Stat(filepath.Join(up, "new")); err != nil {
		t.Error(err)
	}
}

func logged(t *testing.T, path string) (n int) {
	t.Helper()
	for _, e := range readLog(t, path) {
		n += len(e)
	}
	return n
}

func readLog(t *testing.T, path string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var e struct{ Log string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, e.Log)
	}
	return lines
}
