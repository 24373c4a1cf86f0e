package engine

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	apitypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"isle/internal/container"
	"isle/internal/image"
)

// DiskUsage adds up what is on disk, for the kinds of objects that are asked
// for. It reads a lot; the server lets callers at the same time share a run.
func (e *Engine) DiskUsage(ctx context.Context, objects []system.DiskUsageObject) (u system.DiskUsage, err error) {
	for _, o := range objects {
		switch o {
		case system.ContainerObject:
			u.ContainerUsage, err = e.containerUsage(ctx)
		case system.ImageObject:
			u.ImageUsage, err = e.imageUsage(ctx)
		case system.VolumeObject:
			u.VolumeUsage, err = e.volumeUsage(ctx)
		case system.BuildCacheObject:
			u.BuildCacheUsage = &build.DiskUsage{}
		default:
			err = invalid("unknown object type: %s", o)
		}
		if err != nil {
			return u, fmt.Errorf("disk usage: %w", err)
		}
	}
	return u, nil
}

func (e *Engine) containerUsage(ctx context.Context) (*apitypes.DiskUsage, error) {
	items, err := e.ContainerList(ctx, container.ListOptions{All: true, Size: true})
	if err != nil {
		return nil, err
	}
	u := &apitypes.DiskUsage{Items: items, TotalCount: int64(len(items))}
	for _, c := range items {
		u.TotalSize += c.SizeRw
		switch c.State {
		case apitypes.StateRunning, apitypes.StatePaused, apitypes.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u, nil
}

// imageUsage: what removing an unused image frees is what no other image has.
func (e *Engine) imageUsage(ctx context.Context) (*imagetypes.DiskUsage, error) {
	use, _ := e.imageUse()
	items, err := e.Images.List(ctx, image.ListOptions{SharedSize: true, Use: use})
	if err != nil {
		return nil, err
	}
	u := &imagetypes.DiskUsage{Items: items, TotalCount: int64(len(items))}
	if u.TotalSize, err = e.Images.TotalSize(ctx); err != nil {
		return nil, err
	}
	for _, i := range items {
		if i.Containers > 0 {
			u.ActiveCount++
		}
	}
	if u.ActiveCount == 0 {
		u.Reclaimable = u.TotalSize
		return u, nil
	}
	for _, i := range items {
		if i.Containers == 0 {
			u.Reclaimable += i.Size - max(0, i.SharedSize)
		}
	}
	return u, nil
}

func (e *Engine) volumeUsage(ctx context.Context) (*volumetypes.DiskUsage, error) {
	all, err := e.Volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	used := e.volumeUsers()
	u := &volumetypes.DiskUsage{Items: []volumetypes.Volume{}}
	for _, v := range all {
		size, err := e.Volumes.Usage(ctx, v.Name)
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		v = shownVolume(v)
		v.UsageData = &volumetypes.UsageData{RefCount: int64(len(used[v.Name])), Size: size}
		u.Items, u.TotalCount, u.TotalSize = append(u.Items, v), u.TotalCount+1, u.TotalSize+max(0, size)
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(0, size)
		}
	}
	return u, nil
}
