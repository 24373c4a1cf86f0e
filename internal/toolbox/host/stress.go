package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// block is how much is taken or written at a time.
const block = 1 << 20

// load is what stress was asked for, and what came of it.
type load struct {
	Memory int64 `json:"mem,omitempty"`
	CPU    int   `json:"cpu,omitempty"`
	Pids   int   `json:"pids,omitempty"`
	IO     int64 `json:"io,omitempty"`

	Seconds  float64 `json:"seconds"`
	CPUTime  float64 `json:"cpu-seconds,omitempty"`
	Started  int     `json:"pids-started,omitempty"`
	Written  int64   `json:"io-written,omitempty"`
	IOErrors string  `json:"io-error,omitempty"`
	PidError string  `json:"pids-error,omitempty"`

	dir  string
	held []byte
}

// Stress takes memory, processor time, processes and disk writes, holds them for
// a time and prints what it got as JSON. A test of a limit sees by it where the
// limit was.
func Stress(ctx context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "stress [--mem SIZE] [--cpu N] [--pids N] [--io SIZE] [--time DURATION]")
	var l load
	memory := fs.String("mem", "0", "memory to take and touch")
	ioSize := fs.String("io", "0", "bytes to write to a file past the page cache")
	fs.IntVar(&l.CPU, "cpu", 0, "busy threads")
	fs.IntVar(&l.Pids, "pids", 0, "processes to start")
	fs.StringVar(&l.dir, "dir", "/", "where to write")
	hold := fs.DurationP("time", "t", time.Second, "how long; 0 only as long as it takes to get it")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected %q: a load is given by a flag", fs.Arg(0))
	}
	var err1, err2 error
	l.Memory, err1 = applet.Size(*memory)
	l.IO, err2 = applet.Size(*ioSize)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	l.run(ctx, *hold)
	return json.NewEncoder(s.Out).Encode(l)
}

func (l *load) run(ctx context.Context, hold time.Duration) {
	runtime.LockOSThread() // Pdeathsig is about the thread that started the process
	start := time.Now()
	stopProcesses := l.processes()
	defer stopProcesses()
	l.takeMemory()
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	var work sync.WaitGroup
	for range l.CPU {
		work.Go(func() { spin(ctx) })
	}
	if l.IO > 0 {
		work.Go(l.write)
	}
	<-ctx.Done()
	work.Wait()
	l.Seconds = time.Since(start).Seconds()
	l.CPUTime = cpuTime()
}

// takeMemory touches every page, with what cannot be shared or compressed away.
func (l *load) takeMemory() {
	l.held = make([]byte, l.Memory)
	for i := 0; i < len(l.held); i += os.Getpagesize() {
		l.held[i] = byte(i>>12) | 1
	}
}

func spin(ctx context.Context) {
	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()
	for x := uint64(1); !stop.Load(); {
		for range 1 << 16 {
			x = x*6364136223846793005 + 1442695040888963407
		}
	}
}

func cpuTime() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// processes starts copies of this program that wait, until one cannot be started.
func (l *load) processes() (stop func()) {
	var children []*exec.Cmd
	self, err := os.Executable()
	for range l.Pids {
		if err != nil {
			break
		}
		cmd := &exec.Cmd{Path: self, Args: []string{"sleep", "infinity"}, SysProcAttr: &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}}
		if err = cmd.Start(); err == nil {
			children = append(children, cmd)
		}
	}
	l.Started = len(children)
	if err != nil {
		l.PidError = err.Error()
	}
	return func() {
		for _, c := range children {
			_ = c.Process.Kill() // it may have been killed by a limit
			_ = c.Wait()
		}
	}
}

func (l *load) write() {
	err := l.writeFile(fmt.Sprintf("%s/.stress-%d", l.dir, os.Getpid()))
	if err != nil {
		l.IOErrors = err.Error()
	}
}

func (l *load) writeFile(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|unix.O_DSYNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	buf := make([]byte, block)
	for l.Written < l.IO {
		n, err := f.Write(buf[:min(block, l.IO-l.Written)])
		l.Written += int64(n)
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
