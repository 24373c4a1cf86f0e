package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

const (
	maxOut = 1 << 20 // of a plugin's standard output: more is no result
	maxErr = 8 << 10 // of its standard error: the rest is not kept
	grace  = 2 * time.Second
)

var (
	errLate  = errors.New("too late")
	errFlood = errors.New("too much")
	errHeld  = errors.New("it has ended, and a process that it started holds its output open (hint: what stays in the background must close it)")
)

// program is one run of a plugin.
type program struct {
	path  string
	env   []string
	stdin []byte
	limit time.Duration
}

// output is what it has printed.
type output struct{ stdout, stderr []byte }

// run runs p to its end, or to the limit. The process and those that it has started in
// its group are gone then, except after success: some plugins leave a daemon behind on
// purpose. When isled dies, the process is killed: nobody waits for it any more, and
// what it would do later would not be undone.
func (p program) run(ctx context.Context) (output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(p.limit, func() { cancel(errLate) })
	defer timer.Stop()
	stdout, stderr := &bounded{most: maxOut, full: func() { cancel(errFlood) }}, &bounded{most: maxErr}
	c := exec.CommandContext(ctx, p.path)
	c.Dir, c.Env, c.Stdin, c.Stdout, c.Stderr = "/", p.env, bytes.NewReader(p.stdin), stdout, stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = grace
	err := start(c)
	out := output{stdout.kept, stderr.kept}
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // who holds it is of this group, or nobody is
		return out, errHeld
	}
	return out, p.ended(ctx, err)
}

// start runs c on a thread that does not end before it: the death signal is tied to the
// thread that forks.
func start(c *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return c.Run()
}

// ended says why a run was ended before its time.
func (p program) ended(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return err
	case errors.Is(cause, errLate):
		return fmt.Errorf("it did not end within %v and was killed (hint: -o %s sets another limit)", p.limit, optLimit)
	case errors.Is(cause, errFlood):
		return fmt.Errorf("it printed more than %d bytes and was killed", maxOut)
	default:
		return fmt.Errorf("it was killed: %w", cause)
	}
}

// bounded keeps the beginning of what is written.
type bounded struct {
	most int
	full func() // nil: the rest is dropped in silence
	kept []byte
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.most-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	if n < len(p) && b.full != nil {
		b.full()
		return n, errFlood
	}
	return len(p), nil
}
