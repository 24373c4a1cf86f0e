package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/store"
	"isle/internal/undo"
	"isle/internal/volume"
)

// settleMounts says what the container mounts, makes the volumes that are not
// there yet and fills those that are empty from the image.
func (e *Engine) settleMounts(ctx context.Context, u *undo.Stack, rec *container.Record) error {
	wanted, err := volume.Parse(rec.Config, rec.Host, e.mountsOf)
	if err != nil {
		return trimmed(err)
	}
	if err := e.intend(ctx, u, *rec, wanted); err != nil {
		return err
	}
	mounts, err := volume.Settle(wanted, func(req volumetypes.CreateRequest) (volumetypes.Volume, error) {
		return e.volumeFor(ctx, u, req)
	})
	if err != nil {
		return trimmed(err)
	}
	rec.Mounts = mounts
	return e.fillVolumes(ctx, *rec)
}

// intend writes down, before anonymous volumes are made, that they are to go
// with a container that is not there: should isled die here, restore finishes
// its removal. Without it nobody would know them from volumes that were kept.
func (e *Engine) intend(ctx context.Context, u *undo.Stack, rec container.Record, wanted []volume.Wanted) error {
	for _, w := range wanted {
		if w.Anonymous {
			rec.Mounts = append(rec.Mounts, w.Mount)
		}
	}
	if len(rec.Mounts) == 0 {
		return nil
	}
	rec.State.Status, rec.RemoveVolumes = apitypes.StateRemoving, true
	u.Push("write intent", func(ctx context.Context) error {
		return e.Store.Update(ctx, func(tx store.Tx) error { containers.Delete(tx, rec.ID); return nil })
	})
	return e.write(ctx, rec)
}

// mountsOf is for --volumes-from.
func (e *Engine) mountsOf(ref string) ([]container.Mount, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	return c.snapshot().Mounts, nil
}

// volumeFor finds or makes a volume; one that we made goes when create fails.
func (e *Engine) volumeFor(ctx context.Context, u *undo.Stack, req volumetypes.CreateRequest) (volumetypes.Volume, error) {
	_, err := e.Volumes.Find(ctx, req.Name)
	fresh := errdefs.IsNotFound(err)
	v, err := e.Volumes.Create(ctx, req)
	if err != nil || !fresh {
		return v, err
	}
	u.Push("create volume "+v.Name, func(ctx context.Context) error { return e.Volumes.Remove(ctx, v.Name, true) })
	e.emitVolume(v.Name, events.ActionCreate, "driver", v.Driver)
	return v, nil
}

func (e *Engine) fillVolumes(ctx context.Context, rec container.Record) error {
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume || m.NoCopy || m.Subpath != "" {
			continue
		}
		rootfs, err := e.Images.RootfsMounts(ctx, rec.ID)
		if err != nil {
			return fmt.Errorf("root file system: %w", err)
		}
		if err := e.Volumes.Fill(ctx, m.Name, rootfs, m.Destination); err != nil {
			return fmt.Errorf("fill volume %s: %w", m.Name, err)
		}
	}
	return nil
}

// settleSources makes the sources of all mounts available for this run.
func (r *run) settleSources(ctx context.Context, u *undo.Stack) error {
	r.rec.Mounts = slices.Clone(r.rec.Mounts)
	if err := volume.PrepareBinds(r.rec.Mounts); err != nil {
		return trimmed(err)
	}
	r.mounts = slices.Clone(r.rec.Mounts)
	for i := range r.mounts {
		m := &r.mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if err := r.mountVolume(ctx, u, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) mountVolume(ctx context.Context, u *undo.Stack, m *container.Mount) error {
	e, id := r.e, r.rec.ID
	path, err := e.Volumes.Mount(ctx, m.Name, id)
	if err != nil {
		return fmt.Errorf("mount volume %s: %w", m.Name, err)
	}
	u.Push("mount volume "+m.Name, func(ctx context.Context) error { return e.Volumes.Unmount(ctx, m.Name, id) })
	if m.Source, err = volume.Subpath(path, m.Subpath); err != nil {
		return trimmed(err)
	}
	e.emitVolume(m.Name, events.ActionMount, "container", id, "destination", m.Destination, "driver", m.Driver,
		"propagation", string(m.Propagation), "read/write", strconv.FormatBool(m.RW))
	return nil
}

func (e *Engine) unmountVolumes(ctx context.Context, rec container.Record) error {
	errs := []error{e.unmountShm(rec.ID)}
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if err := e.Volumes.Unmount(ctx, m.Name, rec.ID); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("unmount volume %s: %w", m.Name, err))
			continue
		}
		e.emitVolume(m.Name, events.ActionUnmount, "container", rec.ID, "driver", m.Driver)
	}
	return errors.Join(errs...)
}

// removeAnonymous removes the volumes that were made for this container, as
// far as no other uses them. What stays is no reason to keep the container.
func (e *Engine) removeAnonymous(ctx context.Context, rec container.Record) {
	for _, m := range rec.Mounts {
		if !m.Anonymous || e.mountedByOther(m.Name, rec.ID) {
			continue
		}
		if err := e.Volumes.Remove(ctx, m.Name, true); err != nil {
			e.Log.Warn("anonymous volume", "container", ids.Short(rec.ID), "volume", m.Name, "error", err)
			continue
		}
		e.emitVolume(m.Name, events.ActionDestroy, "driver", m.Driver)
	}
}

func (e *Engine) mountedByOther(name, id string) bool {
	for _, c := range e.all() {
		rec := c.snapshot()
		if rec.ID != id && slices.ContainsFunc(rec.Mounts, func(m container.Mount) bool { return m.Name == name }) {
			return true
		}
	}
	return false
}

func (e *Engine) emitVolume(name string, action events.Action, pairs ...string) {
	attrs := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		attrs[pairs[i]] = pairs[i+1]
	}
	e.Bus.Publish(events.Message{Type: events.VolumeEventType, Action: action, Actor: events.Actor{ID: name, Attributes: attrs}})
}

// makeDir makes the directory of the container's own files.
func (e *Engine) makeDir(u *undo.Stack, id string) error {
	u.Push("make directory", func(context.Context) error { return os.RemoveAll(e.dir(id)) })
	if err := os.MkdirAll(e.dir(id), 0o710); err != nil {
		return fmt.Errorf("directory of container %s: %w", ids.Short(id), err)
	}
	return nil
}
