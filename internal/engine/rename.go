package engine

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
)

// ContainerRename gives a container another name, in DNS too.
func (e *Engine) ContainerRename(ctx context.Context, ref, name string) (err error) {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.snapshot()
	if name = strings.TrimPrefix(name, "/"); name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	if name == rec.Name {
		return invalid("Renaming a container with the same name as its current name")
	}
	if _, err := e.reserve(name, rec.ID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			e.release(name, rec.ID)
		}
	}()
	if ownSandbox(rec) {
		if err := e.Networks.Rename(ctx, rec.ID, rec.Name, name); err != nil {
			return about(rec, "rename", err)
		}
	}
	if err := e.update(ctx, c, func(rec *container.Record) error { rec.Name = name; return nil }); err != nil {
		return err
	}
	e.release(rec.Name, rec.ID)
	e.emit(c.snapshot(), events.ActionRename, "oldName", "/"+rec.Name)
	return nil
}
