package shim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket, PidFile and LogFile are names in the run directory.
const (
	Socket   = "shim.sock"
	PidFile  = "shim.pid"
	LogFile  = "shim.log"
	lockFile = "shim.lock"
)

// ErrRunning: another shim serves the run directory.
var ErrRunning = errors.New("another isle-shim is running there")

// Main is isle-shim, called name. It returns the program's exit code.
func Main(name string, args []string, release string, stderr io.Writer) int {
	if filepath.Base(name) == InitName || len(args) > 0 && args[0] == "init" {
		return initMain(args, stderr)
	}
	f := flag.NewFlagSet("isle-shim", flag.ContinueOnError)
	f.SetOutput(stderr)
	runDir := f.String("run-dir", "", "directory of the isled instance (required)")
	patience := f.Duration("patience", 5*time.Second, "how long to stay when nobody is there")
	background := f.Bool("background", false, "return when the shim serves, and leave it running")
	version := f.Bool("version", false, "print the version")
	err := f.Parse(args)
	switch {
	case err != nil:
		return 2
	case *version:
		fmt.Println("isle-shim", release)
		return 0
	case *runDir == "":
		fmt.Fprintln(stderr, "isle-shim: --run-dir is required; it is isled that starts this program")
		return 2
	case *background:
		err = spawn(args)
	default:
		err = serve(*runDir, release, *patience)
	}
	if err != nil {
		fmt.Fprintln(stderr, "isle-shim:", err)
		return 1
	}
	return 0
}

// readyFD is where the background process tells that it serves.
const readyFD = 3

const readyEnv = "ISLE_SHIM_READY"

// spawn starts this program again in a session of its own and waits until it
// serves. That process's parent, this one, then ends: it is nobody's child.
func spawn(args []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	argv := []string{"isle-shim"}
	for _, a := range args {
		if strings.TrimLeft(a, "-") != "background" {
			argv = append(argv, a)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	_, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{Dir: "/", Env: append(os.Environ(), readyEnv+"=1"),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), w.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true}})
	w.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	word, err := io.ReadAll(io.LimitReader(r, 4096))
	if err == nil && string(word) != "ok" {
		err = errors.New(strings.TrimSpace(string(word)))
	}
	return err
}

// tellReady tells the process that waits in spawn, if there is one.
func tellReady(err error) {
	if os.Getenv(readyEnv) == "" {
		return
	}
	os.Unsetenv(readyEnv)
	word := "ok"
	if err != nil {
		word = err.Error()
	}
	syscall.Write(readyFD, []byte(word))
	syscall.Close(readyFD)
}

// serve is the shim's life.
func serve(runDir, release string, patience time.Duration) error {
	// A container costs two stacks and a few kilobytes: collecting early keeps
	// the fixed part small too.
	debug.SetGCPercent(50)
	shed()
	l, s, err := prepare(runDir, release)
	tellReady(err)
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(runDir, PidFile))
	return s.Serve(unlessNeeded(s), l, patience)
}

// shed drops what containers shall not get by way of us: isled's umask, and the
// variables by which a service manager speaks to it (a runtime that finds
// NOTIFY_SOCKET mounts it into the container).
func shed() {
	unix.Umask(0o022)
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"} {
		os.Unsetenv(name)
	}
}

func prepare(runDir, release string) (*net.UnixListener, *Server, error) {
	if os.Getenv(readyEnv) != "" {
		unix.CloseOnExec(readyFD)
	}
	out, err := os.OpenFile(filepath.Join(runDir, LogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := lock(runDir); err != nil {
		out.Close()
		return nil, nil, err
	}
	// What the Go runtime prints when it dies shall be found.
	unix.Dup3(int(out.Fd()), 2, 0)
	log := slog.New(slog.NewTextHandler(out, nil)).With("pid", os.Getpid())
	s, err := New(runDir, release, log)
	if err != nil {
		return nil, nil, err
	}
	l, err := listen(filepath.Join(runDir, Socket))
	if err != nil {
		return nil, nil, err
	}
	return l, s, writePid(filepath.Join(runDir, PidFile))
}

// writePid replaces the file in one step: who reads it finds a number.
func writePid(path string) error {
	if err := os.WriteFile(path+"~", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+"~", path)
}

// lock makes this the only shim of the run directory, until the process ends.
func lock(runDir string) error {
	fd, err := unix.Open(filepath.Join(runDir, lockFile), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", lockFile, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return ErrRunning
	}
	return nil
}

// listen makes the socket. Nobody can connect before its mode is set: it is
// made under another name.
func listen(path string) (*net.UnixListener, error) {
	tmp := path + "~"
	os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("make socket: %w", err)
	}
	return l, nil
}

// unlessNeeded is a context that ends with a signal to terminate, when there
// are no containers: a service manager that stops everything shall not take
// the exit codes along.
func unlessNeeded(s *Server) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	sig := make(chan os.Signal, 1)
	// Handled rather than ignored: that would be inherited by every container.
	signal.Notify(sig, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	go func() {
		for got := range sig {
			if got != unix.SIGTERM {
				continue
			}
			if len(s.all()) == 0 {
				cancel()
				return
			}
			s.log.Warn("told to end, but there are containers: it stays")
		}
	}()
	return ctx
}
