package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/ids"
)

// probe is what a trial with a runtime has shown. It is kept in the run
// directory: a reboot may bring another kernel, and empties that.
type probe struct {
	Format    int   // probeFormat of the isled that tried
	Size      int64 // of the program that was tried
	Changed   time.Time
	Problem   string // "": a container ran
	StartFIFO bool
	// KeepsFilter: it is crun, which leaves the compiled system call filter in
	// its state directory and takes one that is given.
	KeepsFilter bool
}

// probeFormat grows with what a trial finds out: an upgraded isled tries anew.
const probeFormat = 2

// filterBuild is empty when filters of r are not to be kept.
func (p probe) filterBuild(r Runtime) string {
	if !p.KeepsFilter {
		return ""
	}
	return fmt.Sprint(r.Path, p.Size, p.Changed.UnixNano())
}

func (p probe) err() error {
	if p.Problem == "" {
		return nil
	}
	return errors.New(p.Problem)
}

// probed returns what is known of a runtime, and tries it if that is nothing.
func (c *Client) probed(r Runtime) probe {
	st, err := os.Stat(r.Path)
	if err != nil {
		return probe{Problem: err.Error()}
	}
	file := c.path("probe-" + r.Name + ".json")
	var known probe
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &known) == nil &&
		known.Format == probeFormat && known.Size == st.Size() && known.Changed.Equal(st.ModTime()) {
		return known
	}
	p := c.try(r)
	p.Format, p.Size, p.Changed = probeFormat, st.Size(), st.ModTime()
	if b, err := json.Marshal(p); err == nil && p.Problem == "" {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			c.conf.Log.Warn("what was found out about a runtime cannot be kept", "error", err)
		}
	}
	return p
}

// try runs a container; with crun first the short way to start it.
func (c *Client) try(r Runtime) probe {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	crun := isCrun(ctx, r)
	if crun {
		r.StartFIFO = true
		if err = c.trial(ctx, r); err == nil {
			return probe{StartFIFO: true, KeepsFilter: true}
		}
		r.StartFIFO = false
	}
	if err = c.trial(ctx, r); err != nil {
		return probe{Problem: err.Error()}
	}
	return probe{KeepsFilter: crun}
}

func isCrun(ctx context.Context, r Runtime) bool {
	out, err := exec.CommandContext(ctx, r.Path, append(r.Args, "--version")...).Output()
	return err == nil && strings.HasPrefix(string(out), "crun ")
}

// trialPrefix begins the ids of containers that are nobody's but the probe's.
const trialPrefix = "probe-"

func onTrial(id string) bool { return strings.HasPrefix(id, trialPrefix) }

// trial runs a container whose program is isle-shim itself.
func (c *Client) trial(ctx context.Context, r Runtime) (err error) {
	id := trialPrefix + ids.New()[:12]
	bundle := c.path(id)
	defer os.RemoveAll(bundle)
	if err := c.trialBundle(id, bundle); err != nil {
		return err
	}
	p := Proc{ID: id}
	defer func() {
		cleanup := context.WithoutCancel(ctx)
		err = errors.Join(err, c.Delete(cleanup, id), c.Ack(cleanup, p))
	}()
	if _, err := c.Create(ctx, Create{ID: id, Bundle: bundle, Runtime: r}); err != nil {
		return err
	}
	if err := c.Start(ctx, id); err != nil {
		return err
	}
	code, err := c.await(ctx, p)
	if err == nil && code != 0 {
		err = fmt.Errorf("a container on trial ended with %d: %w", code, errdefs.ErrUnknown)
	}
	return err
}

// await waits for an exit without Exits, which is the engine's.
func (c *Client) await(ctx context.Context, p Proc) (int, error) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); sleep(ctx, 2*time.Millisecond) {
		list, err := c.List(ctx)
		if err != nil {
			return 0, err
		}
		for _, s := range list {
			if s.Proc == p && s.Exit != nil {
				return s.Exit.Code, nil
			}
		}
	}
	return 0, fmt.Errorf("a container on trial does not start: %w", errdefs.ErrUnknown)
}

func (c *Client) trialBundle(id, bundle string) error {
	program, err := c.InitPath()
	if err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o711); err != nil {
			return fmt.Errorf("make bundle: %w", err)
		}
	}
	b, err := json.Marshal(trialSpec(id, program, c.conf.SystemdCgroup))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
}

func trialSpec(id, program string, systemd bool) *specs.Spec {
	group := "/isle-" + id
	if systemd {
		group = "isle.slice:isle:" + id
	}
	s := &specs.Spec{
		Version:  "1.0.2",
		Process:  &specs.Process{Args: []string{"/isle-shim", "--version"}, Cwd: "/", Env: []string{"PATH=/"}, Capabilities: &specs.LinuxCapabilities{}},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "probe",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/isle-shim", Type: "bind", Source: program, Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{CgroupsPath: group, Resources: &specs.LinuxResources{}},
	}
	for _, n := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
	}
	return s
}
