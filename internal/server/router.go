package server

import (
	"net/http"
	"net/url"
	"strings"
)

// handle adds an endpoint. A pattern without a method takes all.
func (s *Server) handle(pattern string, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		a := w.(*answer)
		a.err = h(a, r)
	})
}

// named adds an endpoint about a thing whose name may contain slashes, which
// net/http's patterns only allow at the end. verbs are the last segments.
func (s *Server) named(method, prefix string, verbs map[string]func(*answer, *http.Request, string) error) {
	s.handle(method+" "+prefix+"{rest...}", func(a *answer, r *http.Request) error {
		name, verb, ok := splitName(r.URL.EscapedPath(), prefix)
		h := verbs[verb]
		if !ok || h == nil {
			return errNoPage
		}
		return h(a, r, name)
	})
}

// splitName takes "/images/a/b%2Fc/json" apart into "a/b/c" and "json".
func splitName(escaped, prefix string) (name, verb string, ok bool) {
	rest := strings.TrimPrefix(escaped, prefix)
	cut := strings.LastIndexByte(rest, '/')
	if cut <= 0 {
		return "", "", false
	}
	name, err := url.PathUnescape(rest[:cut])
	return name, rest[cut+1:], err == nil
}

// id is the name or id in the path; clients may put a slash before a name.
func id(r *http.Request) string { return strings.TrimPrefix(r.PathValue("id"), "/") }

func (s *Server) routes() {
	s.systemRoutes()
	s.containerRoutes()
	s.imageRoutes()
	s.handle("GET /networks", s.networkList)
	s.handle("POST /networks/create", s.networkCreate)
	s.handle("POST /networks/prune", s.networksPrune)
	s.handle("GET /networks/{id}", s.networkInspect)
	s.handle("DELETE /networks/{id}", s.networkRemove)
	s.handle("POST /networks/{id}/connect", s.networkConnect)
	s.handle("POST /networks/{id}/disconnect", s.networkDisconnect)
	s.handle("GET /volumes", s.volumeList)
	s.handle("POST /volumes/create", s.volumeCreate)
	s.handle("POST /volumes/prune", s.volumesPrune)
	s.handle("GET /volumes/{id}", s.volumeInspect)
	s.handle("PUT /volumes/{id}", swarm) // only volumes of a cluster can be changed
	s.handle("DELETE /volumes/{id}", s.volumeRemove)
	s.isleRoutes()
	s.absentRoutes()
}

func (s *Server) systemRoutes() {
	s.handle("GET /_ping", s.ping)
	s.handle("GET /version", s.version)
	s.handle("GET /info", s.info)
	s.handle("GET /events", s.events)
	s.handle("GET /system/df", s.diskUsage)
	s.handle("POST /auth", s.login)
}

func (s *Server) containerRoutes() {
	s.handle("GET /containers/json", s.containerList)
	s.handle("POST /containers/create", s.containerCreate)
	s.handle("POST /containers/prune", s.containersPrune)
	s.handle("POST /commit", s.containerCommit)
	s.handle("GET /containers/{id}/json", s.containerInspect)
	s.handle("POST /containers/{id}/start", s.containerStart)
	s.handle("POST /containers/{id}/stop", s.containerStop)
	s.handle("POST /containers/{id}/restart", s.containerRestart)
	s.handle("POST /containers/{id}/kill", s.containerKill)
	s.handle("POST /containers/{id}/pause", s.containerPause)
	s.handle("POST /containers/{id}/unpause", s.containerUnpause)
	s.handle("POST /containers/{id}/wait", s.containerWait)
	s.handle("POST /containers/{id}/rename", s.containerRename)
	s.handle("POST /containers/{id}/update", s.containerUpdate)
	s.handle("POST /containers/{id}/resize", s.containerResize)
	s.handle("DELETE /containers/{id}", s.containerRemove)
	s.handle("GET /containers/{id}/stats", s.containerStats)
	s.handle("GET /containers/{id}/top", s.containerTop)
	s.handle("POST /containers/{id}/attach", s.containerAttach)
	s.handle("GET /containers/{id}/attach/ws", s.containerAttachWS)
	s.handle("GET /containers/{id}/logs", s.containerLogs)
	s.handle("HEAD /containers/{id}/archive", s.archiveStat)
	s.handle("GET /containers/{id}/archive", s.archiveGet)
	s.handle("PUT /containers/{id}/archive", s.archivePut)
	s.handle("GET /containers/{id}/export", s.containerExport)
	s.handle("GET /containers/{id}/changes", s.containerChanges)
	s.handle("POST /containers/{id}/exec", s.execCreate)
	s.handle("POST /exec/{id}/start", s.execStart)
	s.handle("POST /exec/{id}/resize", s.execResize)
	s.handle("GET /exec/{id}/json", s.execInspect)
}

func (s *Server) imageRoutes() {
	s.handle("GET /images/json", s.imageList)
	s.handle("GET /images/search", imageSearch)
	s.handle("GET /images/get", s.imagesSave)
	s.handle("POST /images/create", s.imageCreate)
	s.handle("POST /images/load", s.imageLoad)
	s.handle("POST /images/prune", s.imagesPrune)
	type verbs = map[string]func(*answer, *http.Request, string) error
	s.named("GET", "/images/", verbs{"json": s.imageInspect, "history": s.imageHistory, "get": s.imageSave})
	s.named("POST", "/images/", verbs{"push": s.imagePush, "tag": s.imageTag})
	s.named("GET", "/distribution/", verbs{"json": s.distribution})
	s.handle("DELETE /images/{id...}", s.imageRemove)
}
