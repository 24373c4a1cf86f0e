package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/container"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
)

// buildSpec writes the bundle: what package spec makes of the record and of
// what the steps before have found.
func (r *run) buildSpec() error {
	in, err := r.specInput()
	if err != nil {
		return err
	}
	s, err := spec.Build(in)
	if err != nil {
		return trimmed(err)
	}
	r.filter = r.e.Runtime.Filter(r.runtime, s)
	return r.e.writeBundle(r.rec.ID, s)
}

func (r *run) specInput() (in spec.Input, err error) {
	e := r.e
	in = spec.Input{Record: r.rec, Host: e.Host, Rootfs: "rootfs", Mounts: r.mounts, Init: e.Init, User: r.user}
	if in.Devices, err = spec.FindDevices(r.rec.Host); err != nil {
		return in, err
	}
	if in.Namespaces, err = e.namespaces(r.rec, r.netNS); err != nil {
		return in, err
	}
	if in.Shm, err = e.shm(r.rec); err != nil {
		return in, err
	}
	if in.Ulimits, err = spec.ParseUlimits(e.Config.DefaultUlimits); err != nil {
		return in, err
	}
	if r.group, err = e.groupOf(r.rec); err != nil {
		return in, err
	}
	if err := e.Host.Cgroup.EnsureParent(e.cgroupDriver(), e.cgroupParent(r.rec)); err != nil {
		return in, err
	}
	files := e.filesOf(r.rec)
	in.Files = spec.Files{Hosts: e.hostsPath(files), Hostname: e.hostnamePath(files), ResolvConf: e.resolvConfPath(files)}
	in.Cgroup = r.group
	return in, nil
}

func (e *Engine) cgroupParent(rec container.Record) string {
	return or(rec.Host.CgroupParent, e.Config.CgroupParent)
}

func (e *Engine) groupOf(rec container.Record) (cgroup.Group, error) {
	return e.Host.Cgroup.Group(e.cgroupDriver(), e.cgroupParent(rec), rec.ID)
}

// namespaces are those of others that the container joins.
func (e *Engine) namespaces(rec container.Record, netNS string) (spec.Namespaces, error) {
	ns := spec.Namespaces{Net: netNS}
	for _, n := range []struct {
		kind, file string
		is         bool
		ref        string
		path       *string
	}{
		{"PID", "pid", rec.Host.PidMode.IsContainer(), rec.Host.PidMode.Container(), &ns.PID},
		{"IPC", "ipc", rec.Host.IpcMode.IsContainer(), rec.Host.IpcMode.Container(), &ns.IPC},
	} {
		if !n.is {
			continue
		}
		target, err := e.sharer(n.kind, n.ref)
		if err != nil {
			return ns, err
		}
		*n.path = "/proc/" + strconv.Itoa(target.State.Pid) + "/ns/" + n.file
	}
	return ns, nil
}

func (e *Engine) writeBundle(id string, s *specs.Spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	dir := e.bundle(id)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// execProcess is the process of an exec session.
func (e *Engine) execProcess(ctx context.Context, rec container.Record, req apitypes.ExecCreateRequest) (*specs.Process, error) {
	rootfs, err := e.Images.RootfsMounts(ctx, rec.ID)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	user, err := lookUp(rec.State, rec.Host.GroupAdd, rootfs, or(req.User, rec.Config.User))
	if err != nil {
		return nil, err
	}
	limits, err := spec.ParseUlimits(e.Config.DefaultUlimits)
	if err != nil {
		return nil, err
	}
	p, err := spec.Exec(spec.ExecInput{Input: spec.Input{Record: rec, Host: e.Host, Ulimits: limits}, Request: req, User: user})
	return p, trimmed(err)
}

// trimmed leaves of an error of class InvalidArgument the text before the
// class's name; other errors stay as they are.
func trimmed(err error) error {
	if errdefs.IsInvalidArgument(err) {
		return trimClass(err)
	}
	return err
}
