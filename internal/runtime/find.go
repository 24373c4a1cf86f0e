package runtime

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
)

// usual are the runtimes that are looked for when none is configured, the
// preferred one first.
var usual = []string{"crun", "runc"}

// runtimes are the OCI runtimes that are known so far.
type runtimes struct {
	mu     sync.Mutex
	byName map[string]Runtime
	choice string
	// filters says which runtimes keep compiled system call filters, and what
	// build of the program they are of ("": it keeps none).
	filters map[string]string
}

// findRuntimes chooses the default: what is configured, or the first usual
// one with which a container really runs here.
func (c *Client) findRuntimes() error {
	c.runtimes.byName, c.runtimes.filters = map[string]Runtime{}, map[string]string{}
	for name, r := range c.conf.Runtimes {
		c.runtimes.byName[name] = c.complete(name, r.Path, r.Args)
	}
	if c.conf.Default != "" {
		c.runtimes.choice = c.conf.Default
		_, err := c.Find("")
		return err
	}
	var problems error
	for _, name := range usual {
		r, err := c.lookup(name)
		if err == nil {
			err = c.probed(r).err()
		}
		if err == nil {
			c.runtimes.choice = name
			return nil
		}
		problems = errors.Join(problems, fmt.Errorf("%s: %w", name, err))
	}
	return fmt.Errorf("no OCI runtime works on this machine (hint: install crun): %w (%w)", problems, errdefs.ErrFailedPrecondition)
}

func (c *Client) complete(name, path string, args []string) Runtime {
	if path == "" {
		path = name
	}
	if found, err := exec.LookPath(path); err == nil {
		path = found
	}
	return Runtime{Name: name, Path: path, Args: args, Root: filepath.Join(c.conf.RunDir, "oci", name), SystemdCgroup: c.conf.SystemdCgroup}
}

// Find returns the OCI runtime of that name, "" being the default. A name that
// is not configured is a program in PATH.
func (c *Client) Find(name string) (Runtime, error) {
	if name == "" {
		name = c.runtimes.choice
	}
	r, err := c.lookup(name)
	if err != nil {
		return Runtime{}, err
	}
	p := c.probed(r)
	if err := p.err(); err != nil { // it was asked for by name: let it speak for itself
		c.conf.Log.Warn("the runtime did not run a container on trial", "runtime", name, "error", err)
	}
	r.StartFIFO = p.StartFIFO
	c.runtimes.mu.Lock()
	defer c.runtimes.mu.Unlock()
	c.runtimes.filters[r.Name] = p.filterBuild(r)
	return r, nil
}

func (c *Client) lookup(name string) (Runtime, error) {
	c.runtimes.mu.Lock()
	defer c.runtimes.mu.Unlock()
	if r, ok := c.runtimes.byName[name]; ok {
		return r, nil
	}
	if name == "" || name != filepath.Base(name) || name[0] == '.' {
		return Runtime{}, unknownRuntime(name)
	}
	if _, err := exec.LookPath(name); err != nil {
		return Runtime{}, unknownRuntime(name)
	}
	r := c.complete(name, "", nil)
	c.runtimes.byName[name] = r
	return r, nil
}

// unknownRuntime has Docker's words.
func unknownRuntime(name string) error {
	return &shimError{"unknown or invalid runtime name: " + name, errdefs.ErrInvalidArgument}
}

// Names are the runtimes that can be asked for: those configured, and the
// usual ones that are installed.
func (c *Client) Names() map[string]Runtime {
	for _, name := range usual {
		c.lookup(name)
	}
	c.runtimes.mu.Lock()
	defer c.runtimes.mu.Unlock()
	return maps.Clone(c.runtimes.byName)
}

// Default is the name of the runtime for containers that name none.
func (c *Client) Default() string { return c.runtimes.choice }
