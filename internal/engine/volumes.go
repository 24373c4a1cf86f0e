package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"

	"isle/internal/container"
	"isle/internal/filters"
	"isle/internal/volume"
)

// VolumeCreate makes a volume, or finds the one that was made the same way.
func (e *Engine) VolumeCreate(ctx context.Context, req volumetypes.CreateRequest) (volumetypes.Volume, error) {
	v, err := e.Volumes.Create(ctx, req)
	if err != nil {
		return v, trimmed(err)
	}
	e.emitVolume(v.Name, events.ActionCreate, "driver", v.Driver)
	return shownVolume(v), nil
}

// shownVolume has no null where clients expect an object.
func shownVolume(v volumetypes.Volume) volumetypes.Volume {
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if v.Options == nil {
		v.Options = map[string]string{}
	}
	return v
}

// VolumeInspect shows one volume.
func (e *Engine) VolumeInspect(ctx context.Context, name string) (volumetypes.Volume, error) {
	v, err := e.Volumes.Find(ctx, name)
	return shownVolume(v), trimmed(err)
}

// VolumeList lists volumes by name.
func (e *Engine) VolumeList(ctx context.Context, f filters.Args) (volumetypes.ListResponse, error) {
	resp := volumetypes.ListResponse{Volumes: []volumetypes.Volume{}}
	if err := f.Validate("dangling", "driver", "label", "label!", "name"); err != nil {
		return resp, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return resp, err
	}
	all, err := e.Volumes.List(ctx)
	if err != nil {
		return resp, err
	}
	used := e.volumeUsers()
	for _, v := range all {
		if f.Has("dangling") && dangling == (len(used[v.Name]) > 0) {
			continue
		}
		if f.Substring("name", v.Name) && f.Exact("driver", v.Driver) && f.Labels("label", v.Labels) {
			resp.Volumes = append(resp.Volumes, shownVolume(v))
		}
	}
	slices.SortFunc(resp.Volumes, func(a, b volumetypes.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return resp, nil
}

// volumeUsers are the containers, running or not, that mount each volume.
func (e *Engine) volumeUsers() map[string][]string {
	used := map[string][]string{}
	for _, c := range e.all() {
		rec := c.snapshot()
		for _, name := range volumesOf(rec) {
			used[name] = append(used[name], rec.ID)
		}
	}
	for _, ids := range used {
		slices.Sort(ids)
	}
	return used
}

// volumesOf are the names of a container's volumes, each once.
func volumesOf(rec container.Record) []string {
	var names []string
	for _, m := range rec.Mounts {
		if m.Name != "" && !slices.Contains(names, m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// VolumeRemove deletes a volume and its data. One that a container mounts
// stays, even with force, which only makes a missing one no error.
func (e *Engine) VolumeRemove(ctx context.Context, name string, force bool) error {
	v, err := e.Volumes.Find(ctx, name)
	if err != nil {
		if force && errdefs.IsNotFound(err) {
			return nil
		}
		return trimmed(err)
	}
	if users := e.volumeUsers()[name]; len(users) > 0 {
		return conflict("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	if err := e.Volumes.Remove(ctx, name, force); err != nil {
		return trimmed(err)
	}
	e.emitVolume(name, events.ActionDestroy, "driver", v.Driver)
	return nil
}

// VolumesPrune deletes volumes that no container mounts: those without a name
// given by a person, or with "all" every one.
func (e *Engine) VolumesPrune(ctx context.Context, f filters.Args) (volumetypes.PruneReport, error) {
	report := volumetypes.PruneReport{VolumesDeleted: []string{}}
	if err := f.Validate("all", "label", "label!"); err != nil {
		return report, err
	}
	everything, err := f.Bool("all", false)
	if err != nil {
		return report, err
	}
	all, err := e.Volumes.List(ctx)
	if err != nil {
		return report, err
	}
	used := e.volumeUsers()
	for _, v := range all {
		_, anonymous := v.Labels[volume.Anonymous]
		if len(used[v.Name]) > 0 || !anonymous && !everything || !f.Labels("label", v.Labels) {
			continue
		}
		e.pruneVolume(ctx, v, &report)
	}
	e.Bus.Publish(events.Message{Type: events.VolumeEventType, Action: events.ActionPrune, Actor: events.Actor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)},
	}})
	return report, ctx.Err()
}

// pruneVolume removes one volume; one that cannot be removed is left for
// another time.
func (e *Engine) pruneVolume(ctx context.Context, v volumetypes.Volume, report *volumetypes.PruneReport) {
	size, err := e.Volumes.Usage(ctx, v.Name)
	if err != nil {
		e.Log.Debug("size of a volume", "volume", v.Name, "error", err)
	}
	if err := e.VolumeRemove(ctx, v.Name, false); err != nil {
		e.Log.Warn("failed to prune volume", "volume", v.Name, "error", err)
		return
	}
	report.VolumesDeleted = append(report.VolumesDeleted, v.Name)
	report.SpaceReclaimed += uint64(max(0, size))
}
