package engine

import (
	"context"
	"io"
	"maps"
	"strconv"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/filters"
	"isle/internal/image"
)

// emitImage tells what happened to an image. id is its id, or for what moves
// between registries its name; name is what the event calls it.
func (e *Engine) emitImage(action events.Action, id, name string, labels map[string]string) {
	attrs := map[string]string{}
	maps.Copy(attrs, labels)
	attrs["name"] = name
	e.Bus.Publish(events.Message{Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: attrs}})
}

// emitKnown is emitImage with the labels of an image that is here.
func (e *Engine) emitKnown(ctx context.Context, action events.Action, ref, id, name string) {
	var labels map[string]string
	if img, err := e.Images.Resolve(ctx, ref, nil); err == nil {
		labels = img.Config.Config.Labels
		if id == "" {
			id = img.ID
		}
	}
	if name == "" {
		name = id
	}
	e.emitImage(action, id, name, labels)
}

// imageUse says which containers use which image, and which of them run.
func (e *Engine) imageUse() (use, running image.Usage) {
	use, running = image.Usage{}, image.Usage{}
	for _, c := range e.all() {
		rec := c.snapshot()
		use[rec.ImageID] = append(use[rec.ImageID], rec.ID)
		if rec.State.Alive() {
			running[rec.ImageID] = append(running[rec.ImageID], rec.ID)
		}
	}
	return use, running
}

// shownName is a reference as events and people have it, and its repository.
func shownName(ref string) (full, repository string) {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref, ref
	}
	return reference.FamiliarString(reference.TagNameOnly(n)), reference.FamiliarName(n)
}

// ImagePull fetches an image from its registry.
func (e *Engine) ImagePull(ctx context.Context, ref string, opts image.PullOptions) error {
	if err := e.Images.Pull(ctx, ref, opts); err != nil {
		return err
	}
	full, repository := shownName(ref)
	e.emitKnown(ctx, events.ActionPull, full, full, repository)
	return nil
}

// ImagePush sends an image to its registry.
func (e *Engine) ImagePush(ctx context.Context, ref string, opts image.PushOptions) error {
	if err := e.Images.Push(ctx, ref, opts); err != nil {
		return err
	}
	full, repository := shownName(ref)
	e.emitKnown(ctx, events.ActionPush, full, full, repository)
	return nil
}

// ImageLoad takes the images in an archive.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, opts image.LoadOptions) error {
	told := opts.Loaded
	opts.Loaded = func(id string) {
		e.emitKnown(ctx, events.ActionLoad, id, id, id)
		if told != nil {
			told(id)
		}
	}
	return e.Images.Load(ctx, r, opts)
}

// ImageSave writes images as an archive.
func (e *Engine) ImageSave(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error {
	if err := e.Images.Save(ctx, refs, platforms, w); err != nil {
		return err
	}
	for _, ref := range refs {
		e.emitKnown(ctx, events.ActionSave, ref, "", "")
	}
	return nil
}

// ImageImport makes an image of a root file system.
func (e *Engine) ImageImport(ctx context.Context, r io.Reader, opts image.ImportOptions) (string, error) {
	id, err := e.Images.Import(ctx, r, opts)
	if err != nil {
		return "", err
	}
	e.emitKnown(ctx, events.ActionImport, id, id, id)
	return id, nil
}

// ImageTag gives an image one more name.
func (e *Engine) ImageTag(ctx context.Context, src, dst string) error {
	if err := e.Images.Tag(ctx, src, dst); err != nil {
		return err
	}
	full, _ := shownName(dst)
	e.emitKnown(ctx, events.ActionTag, full, "", full)
	return nil
}

// ImageList lists images.
func (e *Engine) ImageList(ctx context.Context, opts image.ListOptions) ([]imagetypes.Summary, error) {
	opts.Use, _ = e.imageUse()
	return e.Images.List(ctx, opts)
}

// ImageInspect shows all about an image.
func (e *Engine) ImageInspect(ctx context.Context, ref string, opts image.InspectOptions) (imagetypes.InspectResponse, error) {
	return e.Images.Inspect(ctx, ref, opts)
}

// ImageHistory lists the steps that made an image.
func (e *Engine) ImageHistory(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	return e.Images.History(ctx, ref, platform)
}

// ImageRemove takes a name from an image, or deletes it.
func (e *Engine) ImageRemove(ctx context.Context, ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	opts.Use, opts.Running = e.imageUse()
	before, err := e.Images.Inspect(ctx, ref, image.InspectOptions{})
	if err != nil { // a damaged image must be removable; Remove says what is wrong with ref
		before = imagetypes.InspectResponse{}
	}
	gone, err := e.Images.Remove(ctx, ref, opts)
	e.emitGone(gone, before)
	return gone, err
}

// emitGone tells of what a removal did, whether it went all the way or not.
func (e *Engine) emitGone(gone []imagetypes.DeleteResponse, before imagetypes.InspectResponse) {
	var labels map[string]string
	if before.Config != nil {
		labels = before.Config.Labels
	}
	for _, g := range gone {
		if g.Untagged != "" {
			e.emitImage(events.ActionUnTag, before.ID, before.ID, labels)
		}
		if g.Deleted != "" {
			e.emitImage(events.ActionDelete, g.Deleted, g.Deleted, labels)
		}
	}
}

// ImagesPrune deletes images that nobody uses.
func (e *Engine) ImagesPrune(ctx context.Context, f filters.Args) (imagetypes.PruneReport, error) {
	use, _ := e.imageUse()
	report, err := e.Images.Prune(ctx, f, use)
	for _, g := range report.ImagesDeleted {
		if g.Deleted != "" {
			e.emitImage(events.ActionDelete, g.Deleted, g.Deleted, nil)
		}
	}
	if err != nil {
		return report, err
	}
	e.Bus.Publish(events.Message{Type: events.ImageEventType, Action: events.ActionPrune, Actor: events.Actor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)},
	}})
	return report, nil
}

// Distribution asks a registry what a name stands for.
func (e *Engine) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	return e.Images.Distribution(ctx, ref, auth)
}

// Login checks credentials with a registry.
func (e *Engine) Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	return e.Images.Login(ctx, auth)
}
