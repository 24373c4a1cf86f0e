package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/container"
	"isle/internal/image"
	"isle/internal/rootfs"
	"isle/internal/runtime/spec"
	"isle/internal/volume"
)

// ContainerStat describes what is at a path in a container.
func (e *Engine) ContainerStat(ctx context.Context, ref, path string) (apitypes.PathStat, error) {
	o, err := e.openFiles(ctx, ref, true)
	if err != nil {
		return apitypes.PathStat{}, err
	}
	defer o.close()
	st, err := o.view.Stat(path)
	return st, o.explain(err, ref, path)
}

// ContainerGet gives what is at a path as tar. Whoever reads it closes it.
func (e *Engine) ContainerGet(ctx context.Context, ref, path string) (io.ReadCloser, apitypes.PathStat, error) {
	o, err := e.openFiles(ctx, ref, true)
	if err != nil {
		return nil, apitypes.PathStat{}, err
	}
	st, err := o.view.Stat(path)
	if err != nil {
		o.close()
		return nil, st, o.explain(err, ref, path)
	}
	e.emit(o.rec, events.ActionArchivePath, "path", path)
	return newPacking(ctx, func(ctx context.Context, w io.Writer) error {
		defer o.close()
		return o.view.Pack(ctx, path, w)
	}), st, nil
}

// packing is an archive that is made while it is read. Close ends the making
// of it and waits until it has ended.
type packing struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func newPacking(ctx context.Context, pack func(context.Context, io.Writer) error) *packing {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	p := &packing{PipeReader: r, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		w.CloseWithError(pack(ctx, w))
	}()
	return p
}

func (p *packing) Close() error {
	p.cancel()
	err := p.PipeReader.Close()
	<-p.done
	return err
}

// ContainerPut unpacks an archive into a directory of a container.
func (e *Engine) ContainerPut(ctx context.Context, ref, path string, tar io.Reader, opts container.PutOptions) error {
	o, err := e.openFiles(ctx, ref, true)
	if err != nil {
		return err
	}
	defer o.close()
	unpack := rootfs.UnpackOptions{NoOverwriteDirNonDir: opts.NoOverwriteDirNonDir}
	if opts.CopyUIDGID && o.rec.Config.User != "" {
		u, err := spec.ResolveUser(o.view, o.rec.Config.User, nil)
		if err != nil {
			return trimmed(err)
		}
		unpack.Owner = &rootfs.Owner{UID: int(u.UID), GID: int(u.GID)}
	}
	if err := o.view.Unpack(ctx, path, tar, unpack); err != nil {
		return o.explain(err, ref, path)
	}
	e.emit(o.rec, events.ActionExtractToDir, "path", path)
	return nil
}

// ContainerExport writes a container's whole root file system as tar, without
// what is mounted on it.
func (e *Engine) ContainerExport(ctx context.Context, ref string, w io.Writer) error {
	o, err := e.openFiles(ctx, ref, false)
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.view.Export(ctx, w); err != nil {
		return about(o.rec, "export", err)
	}
	e.emit(o.rec, events.ActionExport)
	return nil
}

// ContainerChanges lists what a container changed in its image's files.
func (e *Engine) ContainerChanges(ctx context.Context, ref string) ([]apitypes.FilesystemChange, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	rec := c.snapshot()
	changes, err := e.Images.Changes(ctx, rec.ID)
	if err != nil {
		return nil, about(rec, "changes of", err)
	}
	return changes, nil
}

// openedFiles is a container's file system and what has to be undone after.
type openedFiles struct {
	rec   container.Record
	view  *rootfs.View
	close func() // once is enough; more is harmless
}

// explain says a missing path as clients know it.
func (o *openedFiles) explain(err error, ref, path string) error {
	switch {
	case err == nil:
		return nil
	case rootfs.IsNotFound(err):
		return notFound("Could not find the file %s in container %s", path, ref)
	}
	return trimmed(err)
}

// openFiles opens a container's file system; whole: with its volumes and
// binds. While one that does not run is open it cannot be started: the kernel
// leaves undefined what two mounts of one layer see.
func (e *Engine) openFiles(ctx context.Context, ref string, whole bool) (*openedFiles, error) {
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	o := &openedFiles{rec: c.snapshot()}
	if o.rec.State.Alive() {
		if err := o.running(whole); err == nil {
			return o, nil
		} else if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return nil, about(o.rec, "open the files of", err)
		}
	}
	c.op.Lock()
	o.rec = c.snapshot() // it may have been started meanwhile
	if o.rec.State.Alive() {
		defer c.op.Unlock()
		return o, o.running(whole)
	}
	if s := o.rec.State.Status; s == apitypes.StateRemoving || s == apitypes.StateDead {
		defer c.op.Unlock()
		return nil, conflict("container %s is %s: its files cannot be read or changed", o.rec.ID, s)
	}
	if err := e.openStopped(ctx, o, whole, c.op.Unlock); err != nil {
		return nil, about(o.rec, "open the files of", err)
	}
	return o, nil
}

func (o *openedFiles) running(whole bool) (err error) {
	open := rootfs.Base
	if whole {
		open = rootfs.Running
	}
	if o.view, err = open(o.rec.State.Pid); err != nil {
		return err
	}
	o.close = sync.OnceFunc(func() { o.view.Close() })
	return nil
}

// openStopped mounts the files of a container that does not run; unlock is
// called when they are closed, or when there is an error.
func (e *Engine) openStopped(ctx context.Context, o *openedFiles, whole bool, unlock func()) (err error) {
	undo := []func(){unlock}
	release := sync.OnceFunc(func() {
		for _, fn := range slices.Backward(undo) {
			fn()
		}
	})
	defer func() {
		if err != nil {
			release()
		}
	}()
	mounts, err := e.Images.RootfsMounts(ctx, o.rec.ID)
	if err != nil {
		return err
	}
	opts := rootfs.Options{ReadOnly: o.rec.Host.ReadonlyRootfs}
	if whole {
		var leave func()
		opts.Overlays, leave, err = e.overlays(ctx, o.rec)
		undo = append(undo, leave)
		if err != nil {
			return err
		}
	}
	if o.view, err = rootfs.Mounted(mounts, &opts); err != nil {
		return err
	}
	undo = append(undo, func() { o.view.Close() })
	o.close = release
	return nil
}

// overlays are the volumes and binds of a container, parents first. A bind
// whose source has gone is left out: it can be made again at the next start.
func (e *Engine) overlays(ctx context.Context, rec container.Record) (list []rootfs.Overlay, leave func(), err error) {
	var names []string
	leave = func() {
		for _, n := range names {
			if err := e.Volumes.Unmount(context.WithoutCancel(ctx), n, archiveUser(rec)); err != nil {
				e.Log.Warn("unmount volume", "volume", n, "error", err)
			}
		}
	}
	for _, m := range rec.Mounts {
		o := rootfs.Overlay{Source: m.Source, Target: m.Destination, ReadOnly: !m.RW, NonRecursive: m.NonRecursive}
		switch m.Type {
		case mount.TypeVolume:
			if o.Source, err = e.Volumes.Mount(ctx, m.Name, archiveUser(rec)); err != nil {
				return nil, leave, fmt.Errorf("volume %s: %w", m.Name, err)
			}
			names = append(names, m.Name)
			if o.Source, err = volume.Subpath(o.Source, m.Subpath); err != nil {
				return nil, leave, err
			}
		case mount.TypeBind:
			if _, err := os.Stat(m.Source); err != nil {
				continue
			}
		default:
			continue
		}
		list = append(list, o)
	}
	slices.SortStableFunc(list, func(a, b rootfs.Overlay) int {
		return cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/"))
	})
	return list, leave, nil
}

// archiveUser is who mounts a volume while files are copied.
func archiveUser(rec container.Record) string { return "archive-" + rec.ID }

// ContainerCommit makes an image of a container. A running one is frozen for
// the time if opts say so.
func (e *Engine) ContainerCommit(ctx context.Context, ref string, opts container.CommitOptions) (id string, err error) {
	c, err := e.find(ref)
	if err != nil {
		return "", err
	}
	rec := c.snapshot()
	cfg, err := commitConfig(rec, opts)
	if err != nil {
		return "", trimmed(err)
	}
	if s := rec.State.Status; s == apitypes.StateRemoving || s == apitypes.StateDead {
		return "", conflict("You cannot commit container %s which is %s", rec.ID, s)
	}
	parent, err := e.parentImage(ctx, rec)
	if err != nil {
		return "", err
	}
	if opts.Pause && rec.State.Status == apitypes.StateRunning {
		if err := e.ContainerPause(ctx, rec.ID); err != nil && !errdefs.IsConflict(err) {
			return "", err
		} else if err == nil {
			defer func() { err = errors.Join(err, e.thaw(ctx, rec)) }()
		}
	}
	name := commitName(opts)
	id, err = e.Images.Commit(ctx, image.CommitRequest{
		ContainerID: rec.ID, Ref: name, Author: opts.Author, Message: opts.Comment, Parent: parent, Config: cfg,
	})
	if err != nil {
		return "", about(rec, "commit", err)
	}
	e.emit(rec, events.ActionCommit, "comment", opts.Comment, "imageID", id, "imageRef", name)
	return id, nil
}

// thaw lets a container go on that we froze. One that was killed meanwhile
// needs no thawing.
func (e *Engine) thaw(ctx context.Context, rec container.Record) error {
	if err := e.ContainerUnpause(context.WithoutCancel(ctx), rec.ID); err != nil && !errdefs.IsConflict(err) {
		return about(rec, "unpause", err)
	}
	return nil
}

func commitName(opts container.CommitOptions) string {
	if opts.Repo == "" || opts.Tag == "" {
		return opts.Repo
	}
	return opts.Repo + ":" + opts.Tag
}

// parentImage is the image that a container was made of, for its platform.
func (e *Engine) parentImage(ctx context.Context, rec container.Record) (image.Image, error) {
	var platform *ocispec.Platform
	if parts := strings.SplitN(rec.Platform, "/", 3); len(parts) >= 2 {
		platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
		if len(parts) == 3 {
			platform.Variant = parts[2]
		}
	}
	return e.Images.Resolve(ctx, rec.ImageID, platform)
}

// commitConfig is the new image's configuration: what the request says, what
// --change says of it, and the container's for the rest.
func commitConfig(rec container.Record, opts container.CommitOptions) (*apitypes.Config, error) {
	cfg := *rec.Config
	if opts.Config != nil {
		cfg = overlayConfig(*opts.Config, *rec.Config)
	}
	if err := image.ApplyChanges(&cfg, opts.Changes); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// overlayConfig lays a over b.
func overlayConfig(a, b apitypes.Config) apitypes.Config {
	c := b
	c.User, c.WorkingDir, c.StopSignal = or(a.User, b.User), or(a.WorkingDir, b.WorkingDir), or(a.StopSignal, b.StopSignal)
	c.Env = mergeEnv(b.Env, a.Env)
	c.Labels, c.Volumes, c.ExposedPorts = overlaid(a.Labels, b.Labels), overlaid(a.Volumes, b.Volumes), overlaid(a.ExposedPorts, b.ExposedPorts)
	if len(a.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = a.Entrypoint, a.Cmd
	} else if len(a.Cmd) > 0 {
		c.Cmd = a.Cmd
	}
	if a.Healthcheck != nil {
		c.Healthcheck = a.Healthcheck
	}
	if len(a.OnBuild) > 0 {
		c.OnBuild = a.OnBuild
	}
	if len(a.Shell) > 0 {
		c.Shell = a.Shell
	}
	return c
}

func overlaid[M ~map[K]V, K comparable, V any](a, b M) M {
	if len(a) == 0 {
		return b
	}
	out := M{}
	for _, m := range []M{b, a} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
