package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// Names of the shim's in the run directory; see package shim.
const shimSocket = "shim.sock"

// connect connects to the shim, and starts it when it is not there.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path(shimSocket))
	if err == nil || !absent(err) {
		return conn, err
	}
	if err := c.launch(ctx); err != nil {
		return nil, fmt.Errorf("start isle-shim: %w (%w)", err, errdefs.ErrUnavailable)
	}
	return d.DialContext(ctx, "unix", c.path(shimSocket))
}

// absent: nobody listens there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// launch starts a shim that is no child of ours: the program starts itself
// again in a session of its own, and returns when that one serves. Another
// isled or goroutine may be faster, which is as good.
func (c *Client) launch(ctx context.Context) error {
	c.launching.Lock()
	defer c.launching.Unlock()
	var problem error
	for range 20 {
		if conn, err := net.Dial("unix", c.path(shimSocket)); err == nil {
			return conn.Close()
		}
		if problem = c.spawn(); problem == nil {
			return nil
		}
		if !strings.Contains(problem.Error(), "another isle-shim is running") {
			return problem
		}
		select { // it is about to serve, or about to end
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return problem
}

func (c *Client) spawn() error {
	cmd := exec.Command(c.conf.ShimPath, "--background", "--run-dir", c.conf.RunDir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil && text != "" {
		return fmt.Errorf("%s: %w", text, err)
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is missing (hint: it belongs beside isled): %w", c.conf.ShimPath, err)
	}
	return err
}
