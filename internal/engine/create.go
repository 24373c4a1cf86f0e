package engine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/ids"
	"isle/internal/image"
	"isle/internal/undo"
)

// ContainerCreate makes a container that does not run yet. When it fails
// nothing is left.
func (e *Engine) ContainerCreate(ctx context.Context, opts container.CreateOptions) (_ apitypes.CreateResponse, err error) {
	var u undo.Stack
	defer func() { u.Unwind(ctx, &err); err = ownWords(err) }()
	opts, err = e.checked(opts)
	if err != nil {
		return apitypes.CreateResponse{}, err
	}
	img, err := e.imageOf(ctx, opts)
	if err != nil {
		return apitypes.CreateResponse{}, err
	}
	rec, warnings, err := e.draft(ctx, opts, img)
	if err != nil {
		return apitypes.CreateResponse{}, onlyImages(err)
	}
	if rec.Name, err = e.reserve(opts.Name, rec.ID); err != nil {
		return apitypes.CreateResponse{}, err
	}
	u.Push("reserve name", func(context.Context) error { e.release(rec.Name, rec.ID); return nil })
	if err := e.furnish(ctx, &u, &rec, img); err != nil {
		return apitypes.CreateResponse{}, onlyImages(err)
	}
	if err := e.add(ctx, rec); err != nil {
		return apitypes.CreateResponse{}, err
	}
	failpoint.Here(failpoint.CreateAfterRecord)
	e.emit(rec, events.ActionCreate)
	return apitypes.CreateResponse{ID: rec.ID, Warnings: warnings}, nil
}

// onlyImages: "not found" is kept for images, since a client that is told so
// pulls the image and tries again.
func onlyImages(err error) error {
	if errdefs.IsNotFound(err) {
		return invalid("%s", err)
	}
	return err
}

// checked fills in what opts leaves out, on copies, and refuses what makes no sense.
func (e *Engine) checked(opts container.CreateOptions) (container.CreateOptions, error) {
	if opts.Config == nil {
		return opts, invalid("config cannot be empty in order to create a container")
	}
	if opts.Name = strings.TrimPrefix(opts.Name, "/"); opts.Name != "" {
		if err := checkName(opts.Name); err != nil {
			return opts, err
		}
	}
	cfg := *opts.Config
	opts.Config = &cfg
	host := apitypes.HostConfig{}
	if opts.Host != nil {
		host = *opts.Host
	}
	e.hostDefaults(&host)
	opts.Host = &host
	return opts, e.checkOptions(cfg, host)
}

// imageOf finds the image; the built-in one is assembled when it is asked for.
func (e *Engine) imageOf(ctx context.Context, opts container.CreateOptions) (image.Image, error) {
	ref := opts.Config.Image
	if ref == "" {
		return image.Image{}, invalid("no image was specified: Config.Image cannot be empty")
	}
	if _, err := reference.ParseAnyReference(ref); err != nil && !ids.Valid(ref) {
		return image.Image{}, invalid("invalid reference format")
	}
	img, err := e.Images.Resolve(ctx, ref, opts.Platform)
	if !errdefs.IsNotFound(err) {
		return img, err
	}
	if err := e.Images.EnsureBuiltin(ctx, ref); err != nil {
		return image.Image{}, err
	}
	return e.Images.Resolve(ctx, ref, opts.Platform)
}

// draft is the record of the container to be, without its name and mounts.
func (e *Engine) draft(ctx context.Context, opts container.CreateOptions, img image.Image) (container.Record, []string, error) {
	cfg, err := mergeImage(*opts.Config, img.Config)
	if err != nil {
		return container.Record{}, nil, err
	}
	rec := container.Record{
		ID: ids.New(), Created: time.Now().UTC(), Image: opts.Config.Image, ImageID: img.ID, Manifest: &img.Manifest,
		Platform: platforms.Format(img.Platform), Config: cfg, Host: opts.Host, Runtime: opts.Host.Runtime,
		State: container.State{Status: apitypes.StateCreated},
	}
	argv := append(append([]string{}, cfg.Entrypoint...), cfg.Cmd...)
	if len(argv) == 0 || argv[0] == "" {
		return rec, nil, invalid("no command specified")
	}
	rec.Path, rec.Args = argv[0], argv[1:]
	rt, err := e.Runtime.Find(opts.Host.Runtime)
	if err != nil {
		return rec, nil, invalid("unknown or invalid runtime name: %s", opts.Host.Runtime)
	}
	rec.Runtime, opts.Host.Runtime = rt.Name, rt.Name
	if err := e.settleNetworks(ctx, &rec, opts.Networking); err != nil {
		return rec, nil, err
	}
	if cfg.Hostname == "" {
		cfg.Hostname = e.defaultHostname(rec)
	}
	return rec, append(e.warnings(rec, img), e.portWarnings(rec)...), nil
}

// defaultHostname is what the container is called when nobody says.
func (e *Engine) defaultHostname(rec container.Record) string {
	switch {
	case rec.Host.NetworkMode.IsHost() || rec.Host.UTSMode.IsHost():
		h, err := os.Hostname()
		if err == nil {
			return h
		}
	case rec.Host.NetworkMode.IsContainer():
		if c, err := e.find(rec.Host.NetworkMode.ConnectedContainer()); err == nil {
			return c.snapshot().Config.Hostname
		}
	}
	return ids.Short(rec.ID)
}

// furnish makes what is on disk: the writable layer and the volumes.
func (e *Engine) furnish(ctx context.Context, u *undo.Stack, rec *container.Record, img image.Image) error {
	failpoint.Here(failpoint.CreateBeforeRootfs)
	u.Push("prepare root file system", func(ctx context.Context) error { return e.Images.RemoveRootfs(ctx, rec.ID) })
	if err := e.Images.PrepareRootfs(ctx, rec.ID, img); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if err := e.makeDir(u, rec.ID); err != nil {
		return err
	}
	failpoint.Here(failpoint.CreateAfterRootfs)
	if err := e.settleMounts(ctx, u, rec); err != nil {
		return err
	}
	failpoint.Here(failpoint.CreateAfterVolumes)
	return nil
}

// add commits a new record and puts it into the index.
func (e *Engine) add(ctx context.Context, rec container.Record) error {
	if err := e.write(ctx, rec); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byID[rec.ID] = &entry{rec: rec}
	return nil
}

func publishes(rec container.Record) bool {
	return len(rec.Host.PortBindings) > 0 || rec.Host.PublishAllPorts || rec.Host.Annotations[AnnotationPublish] != ""
}

// warnings are what a person should know that is no error.
func (e *Engine) warnings(rec container.Record, img image.Image) []string {
	w := []string{}
	if rec.Host.NetworkMode.IsHost() && publishes(rec) {
		w = append(w, "Published ports are discarded when using host network mode")
	}
	if rec.Host.NetworkMode.IsNone() && rec.Host.PublishAllPorts {
		w = append(w, "Published ports are discarded when using the network mode none")
	}
	if want := platforms.DefaultSpec(); img.Platform.Architecture != "" && img.Platform.Architecture != want.Architecture {
		w = append(w, fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
			platforms.Format(img.Platform), platforms.Format(want)))
	}
	if len(rec.Host.Links) > 0 {
		w = append(w, "Links are a legacy feature: the names are written to /etc/hosts at start and do not follow later changes")
	}
	return w
}
