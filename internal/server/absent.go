package server

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
)

// absentRoutes are Docker's endpoints that Isle does not have, or not yet. Each
// says so in words that a person and a client understand.
func (s *Server) absentRoutes() {
	for _, p := range []string{"swarm", "nodes", "services", "tasks", "secrets", "configs"} {
		s.handle("/"+p, swarm)
		s.handle("/"+p+"/{rest...}", swarm)
	}
	for _, p := range []string{"/session", "/grpc", "POST /build"} {
		s.handle(p, buildLater)
	}
	s.handle("POST /build/prune", buildPrune)
	s.handle("POST /build/cancel", buildCancel)
	s.handle("GET /plugins", func(a *answer, _ *http.Request) error { return a.ok([]string{}) })
	s.handle("GET /plugins/{rest...}", noPlugin)
	s.handle("/plugins/{rest...}", noPlugins)
	s.handle("/containers/{id}/checkpoints", noCheckpoints)
	s.handle("/containers/{id}/checkpoints/{rest...}", noCheckpoints)
	s.handle("/", func(*answer, *http.Request) error { return errNoPage })
}

func swarm(*answer, *http.Request) error { return errSwarm }

func buildLater(*answer, *http.Request) error {
	return notImplemented("isle cannot build images yet: build comes later; hint: build elsewhere and pull or load the image")
}

// buildPrune is part of "docker system prune", which would fail as a whole if
// this did. There is no build cache, so nothing of it was deleted: true.
func buildPrune(a *answer, _ *http.Request) error {
	return a.ok(build.CachePruneReport{CachesDeleted: []string{}})
}

func buildCancel(_ *answer, r *http.Request) error {
	id := r.URL.Query().Get("id")
	if id == "" {
		return invalid("build ID not provided")
	}
	return fmt.Errorf("no such build: %s: %w", id, errdefs.ErrNotFound)
}

func noPlugin(_ *answer, r *http.Request) error {
	name, verb, ok := splitName(r.URL.EscapedPath(), "/plugins/")
	if !ok || verb != "json" {
		return noPlugins(nil, r)
	}
	return fmt.Errorf("plugin %q not found: %w", name, errdefs.ErrNotFound)
}

func noPlugins(*answer, *http.Request) error {
	return notImplemented("isle has no managed plugins; hint: network drivers are found by their sockets or CNI configuration")
}

func noCheckpoints(*answer, *http.Request) error {
	return notImplemented("checkpoint is only supported on a Docker daemon with experimental features enabled; isle has none")
}

func imageSearch(*answer, *http.Request) error {
	return notImplemented("isle does not search registries; hint: use the registry's own page, such as https://hub.docker.com/search")
}
