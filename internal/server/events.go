package server

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"

	"isle/internal/filters"
)

var eventFilters = []string{
	"builder", "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
	"scope", "secret", "service", "type", "volume",
}

// events gives past events and then goes on live, until "until" or the client's end.
func (s *Server) events(a *answer, r *http.Request) error {
	q := queryOf(r)
	since, until, f := q.time("since"), q.time("until"), q.filters(eventFilters...)
	if q.err == nil && !since.IsZero() && !until.IsZero() && until.Before(since) {
		q.bad("`since` time (%s) cannot be after `until` time (%s)", since, until)
	}
	if q.err != nil {
		return q.err
	}
	if since.IsZero() && !until.IsZero() {
		since = time.Unix(0, 1) // all that is remembered; the zero time is none
	}
	past, live, cancel := s.Backend.Events(since)
	defer cancel()
	e := eventWriter{a: a, kind: eventType(a.v, r), until: until, filters: f}
	a.Header().Set("Content-Type", e.kind)
	a.Flush()
	for _, m := range past {
		if err := e.write(m); err != nil {
			return err
		}
	}
	return e.follow(r, live)
}

type eventWriter struct {
	a       *answer
	kind    string
	until   time.Time
	filters filters.Args
}

// follow returns without an error: whatever ends the stream, the answer is whole.
func (e *eventWriter) follow(r *http.Request, live <-chan events.Message) error {
	var end <-chan time.Time
	if !e.until.IsZero() {
		t := time.NewTimer(time.Until(e.until))
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-end:
			return nil
		case m, ok := <-live:
			if !ok {
				return nil
			}
			if err := e.write(m); err != nil {
				return err
			}
		}
	}
}

func (e *eventWriter) write(m events.Message) error {
	late := !e.until.IsZero() && m.TimeNano > e.until.UnixNano()
	if late || !eventPasses(e.filters, m) {
		return nil
	}
	b, err := json.Marshal(eventFor(e.a.v, m))
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	if e.kind == types.MediaTypeJSONSequence {
		b = append([]byte{0x1E}, b...)
	}
	_, err = flushing{e.a}.Write(append(b, '\n'))
	return gone(err)
}

// eventType is what the client likes best among what an event stream can be.
func eventType(v version, r *http.Request) string {
	best, most := types.MediaTypeJSON, 0.0
	if v < 52 {
		return best
	}
	for accept := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		t, params, err := mime.ParseMediaType(accept)
		if err != nil {
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			q, _ = strconv.ParseFloat(s, 64)
		}
		switch t {
		case types.MediaTypeJSON, types.MediaTypeNDJSON, types.MediaTypeJSONLines, types.MediaTypeJSONSequence:
			if q > most {
				best, most = t, q
			}
		}
	}
	return best
}

// eventPasses: every key must match, by one of its terms. A term for an object
// is a prefix of its id or name; only events of that kind have one.
func eventPasses(f filters.Args, m events.Message) bool {
	return f.Exact("type", string(m.Type)) && f.Exact("scope", m.Scope) && f.Labels("label", m.Actor.Attributes) &&
		actionPasses(f, m) && imagePasses(f, m) && objectPasses(f, m)
}

func objectPasses(f filters.Args, m events.Message) bool {
	for _, kind := range []events.Type{
		events.BuilderEventType, events.ConfigEventType, events.ContainerEventType, events.DaemonEventType,
		events.NetworkEventType, events.NodeEventType, events.PluginEventType, events.SecretEventType,
		events.ServiceEventType, events.VolumeEventType,
	} {
		key := string(kind)
		if !f.Has(key) {
			continue
		}
		if m.Type != kind || !f.Prefix(key, m.Actor.ID) && !f.Prefix(key, m.Actor.Attributes["name"]) {
			return false
		}
	}
	return true
}

// actionPasses lets "health_status" stand for every health status, and
// "exec_start" for "exec_start: sh".
func actionPasses(f filters.Args, m events.Message) bool {
	a := string(m.Action)
	if strings.HasPrefix(a, "health_status") || strings.HasPrefix(a, "exec_") {
		return f.Prefix("event", a)
	}
	return f.Exact("event", a)
}

// imagePasses compares an image event's own id and name, a container event's image.
func imagePasses(f filters.Args, m events.Message) bool {
	if !f.Has("image") {
		return true
	}
	names := []string{m.Actor.Attributes["image"]}
	if m.Type == events.ImageEventType {
		names = []string{m.Actor.ID, m.Actor.Attributes["name"]}
	}
	return slices.ContainsFunc(names, func(n string) bool {
		return n != "" && (f.Exact("image", n) || f.Exact("image", withoutTag(n)))
	})
}

func withoutTag(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}
