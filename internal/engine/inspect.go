package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"isle/internal/container"
	"isle/internal/runtime/spec"
)

// ContainerInspect is all there is to know about a container.
func (e *Engine) ContainerInspect(ctx context.Context, ref string, size bool) (apitypes.InspectResponse, error) {
	c, err := e.find(ref)
	if err != nil {
		return apitypes.InspectResponse{}, err
	}
	rec := c.snapshot()
	r := e.inspected(rec)
	r.ExecIDs = e.execIDs(c)
	if r.NetworkSettings.SandboxID != "" {
		r.NetworkSettings.SandboxKey = e.sandboxKey(rec)
	}
	if size {
		rw, total, err := e.Images.RootfsUsage(ctx, rec.ID)
		if err != nil {
			return r, about(rec, "size of", err)
		}
		r.SizeRw, r.SizeRootFs = &rw, &total
	}
	return r, nil
}

func (e *Engine) inspected(rec container.Record) apitypes.InspectResponse {
	driver, _ := e.Images.Driver()
	files := e.filesOf(rec)
	goos, _, _ := strings.Cut(rec.Platform, "/")
	r := apitypes.InspectResponse{
		ID: rec.ID, Name: "/" + rec.Name, Created: rec.Created.Format(time.RFC3339Nano), Path: rec.Path, Args: append([]string{}, rec.Args...),
		State: state(rec.State), Image: rec.ImageID, ImageManifestDescriptor: rec.Manifest, Platform: goos, Driver: driver,
		ResolvConfPath: e.resolvConfPath(files), HostnamePath: e.hostnamePath(files), HostsPath: e.hostsPath(files),
		RestartCount: rec.RestartCount, HostConfig: e.hostConfig(rec), Config: rec.Config, Mounts: mountPoints(rec),
		AppArmorProfile: e.appArmor(rec),
		Storage:         &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: driver}}},
		NetworkSettings: &apitypes.NetworkSettings{Ports: portsOf(rec), Networks: rec.Networks},
	}
	if readable(rec) {
		r.LogPath = e.logPath(rec.ID)
	}
	if rec.State.Alive() && ownSandbox(rec) {
		r.NetworkSettings.SandboxID = rec.ID
	}
	return r
}

func state(s container.State) *apitypes.State {
	st := s.Status
	return &apitypes.State{
		Status: st, Running: s.Alive() || st == apitypes.StateRestarting, Paused: st == apitypes.StatePaused, Restarting: st == apitypes.StateRestarting,
		Dead: st == apitypes.StateDead, OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: s.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: s.FinishedAt.UTC().Format(time.RFC3339Nano), Health: s.Health,
	}
}

// hostConfig shows the defaults of lists where Docker does.
func (e *Engine) hostConfig(rec container.Record) *apitypes.HostConfig {
	h := *rec.Host
	if !h.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = spec.MaskedPaths(e.Host)
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = spec.ReadonlyPaths()
		}
	}
	return &h
}

func (e *Engine) appArmor(rec container.Record) string {
	if !e.Host.AppArmor || rec.Host.Privileged {
		return ""
	}
	for _, o := range rec.Host.SecurityOpt {
		if p, ok := strings.CutPrefix(o, "apparmor="); ok {
			return p
		}
	}
	return ""
}

// sandboxKey is the namespace's path; the way to it through the process where
// it has no file.
func (e *Engine) sandboxKey(rec container.Record) string {
	if path, err := e.openNS(rec); err == nil && path != "" {
		return path
	}
	return fmt.Sprintf("/proc/%d/ns/net", rec.State.Pid)
}

// execIDs are the sessions that have not ended; nil when there are none.
func (e *Engine) execIDs(c *entry) []string {
	var out []string
	for _, x := range e.sessions.of(c) {
		x.mu.Lock()
		if x.running {
			out = append(out, x.id)
		}
		x.mu.Unlock()
	}
	slices.Sort(out)
	return out
}
