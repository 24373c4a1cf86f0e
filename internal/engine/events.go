package engine

import (
	"maps"
	"time"

	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/network"
)

// Events is what the server listens to.
func (e *Engine) Events(since time.Time) ([]events.Message, <-chan events.Message, func()) {
	return e.Bus.Subscribe(since)
}

// emit tells what happened to a container. extra are pairs of attributes.
func (e *Engine) emit(rec container.Record, action events.Action, extra ...string) {
	e.emitAt(time.Time{}, rec, action, extra...)
}

// emitAt is emit for something that happened while isled was not there.
func (e *Engine) emitAt(at time.Time, rec container.Record, action events.Action, extra ...string) {
	attrs := map[string]string{}
	if rec.Config != nil {
		maps.Copy(attrs, rec.Config.Labels)
	}
	attrs["image"], attrs["name"] = rec.Image, rec.Name
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	m := events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: rec.ID, Attributes: attrs}}
	if !at.IsZero() {
		m.TimeNano = at.UnixNano()
	}
	e.Bus.Publish(m)
}

// emitNetwork tells what happened to a network; containerID may be empty.
func (e *Engine) emitNetwork(n network.Network, action events.Action, containerID string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	if containerID != "" {
		attrs["container"] = containerID
	}
	e.Bus.Publish(events.Message{Type: events.NetworkEventType, Action: action, Actor: events.Actor{ID: n.ID, Attributes: attrs}})
}
