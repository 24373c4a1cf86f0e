package server

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/moby/moby/api/types/container"

	isle "isle/internal/container"
)

var (
	containerFilters = []string{
		"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name",
		"network", "publish", "since", "status", "volume",
	}
	pruneFilters = []string{"label", "label!", "until"}
)

func (s *Server) containerList(a *answer, r *http.Request) error {
	q := queryOf(r)
	opts := isle.ListOptions{All: q.bool("all"), Limit: q.int("limit", 0), Size: q.bool("size"), Filters: q.filters(containerFilters...)}
	if q.err != nil {
		return q.err
	}
	all, err := s.Backend.ContainerList(r.Context(), opts)
	if err != nil {
		return err
	}
	return a.ok(list(summaries(a.v, all)))
}

func (s *Server) containerInspect(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	c, err := s.Backend.ContainerInspect(r.Context(), id(r), q.bool("size"))
	if err != nil {
		return err
	}
	return a.ok(inspected(a.v, c))
}

func (s *Server) containerStart(a *answer, r *http.Request) error {
	// Up to 1.23 a body could hold a host configuration. "null" and "{}" are harmless.
	if r.ContentLength > 7 || r.ContentLength == -1 {
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.URL.Query().Get("checkpoint") != "" {
		return noCheckpoints(a, r)
	}
	return a.done(s.Backend.ContainerStart(r.Context(), id(r)))
}

func stopOptions(a *answer, r *http.Request) (isle.StopOptions, error) {
	q := queryOf(r)
	var opts isle.StopOptions
	if q.Get("t") != "" {
		t := q.int("t", 0)
		opts.Timeout = &t
	}
	if a.v >= 42 {
		opts.Signal = q.Get("signal")
	}
	return opts, q.err
}

func (s *Server) containerStop(a *answer, r *http.Request) error {
	opts, err := stopOptions(a, r)
	if err != nil {
		return err
	}
	return a.done(s.Backend.ContainerStop(r.Context(), id(r), opts))
}

func (s *Server) containerRestart(a *answer, r *http.Request) error {
	opts, err := stopOptions(a, r)
	if err != nil {
		return err
	}
	return a.done(s.Backend.ContainerRestart(r.Context(), id(r), opts))
}

func (s *Server) containerKill(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	return a.done(s.Backend.ContainerKill(r.Context(), id(r), q.Get("signal")))
}

func (s *Server) containerPause(a *answer, r *http.Request) error {
	return a.done(s.Backend.ContainerPause(r.Context(), id(r)))
}

func (s *Server) containerUnpause(a *answer, r *http.Request) error {
	return a.done(s.Backend.ContainerUnpause(r.Context(), id(r)))
}

func (s *Server) containerRemove(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	opts := isle.RemoveOptions{Force: q.bool("force"), Volumes: q.bool("v"), Link: q.bool("link")}
	return a.done(s.Backend.ContainerRemove(r.Context(), id(r), opts))
}

func (s *Server) containerRename(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err == nil && (q.Get("name") == "" || id(r) == "") {
		q.bad("Neither old nor new names may be empty")
	}
	if q.err != nil {
		return q.err
	}
	return a.done(s.Backend.ContainerRename(r.Context(), id(r), q.Get("name")))
}

func (s *Server) containerUpdate(a *answer, r *http.Request) error {
	var cfg isle.UpdateOptions
	if err := require(a, r, &cfg); err != nil {
		return err
	}
	if a.v < 40 {
		cfg.PidsLimit = nil
	}
	if cfg.PidsLimit != nil && *cfg.PidsLimit < 0 {
		cfg.PidsLimit = new(int64) // 0 is "no limit", nil would be "no change"
	}
	resp, err := s.Backend.ContainerUpdate(r.Context(), id(r), cfg)
	if err != nil {
		return err
	}
	return a.ok(resp)
}

func (s *Server) containerResize(a *answer, r *http.Request) error {
	h, w, err := terminalSize(r)
	if err != nil {
		return err
	}
	if err := s.Backend.ContainerResize(r.Context(), id(r), h, w); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}

func terminalSize(r *http.Request) (height, width uint16, err error) {
	q := queryOf(r)
	height, width = q.size("h"), q.size("w")
	return height, width, q.err
}

// containerWait tells the client at once that it is waiting: it starts the
// container only when it knows.
func (s *Server) containerWait(a *answer, r *http.Request) error {
	cond, err := waitCondition(a, r)
	if err != nil {
		return err
	}
	result, err := s.Backend.ContainerWait(r.Context(), id(r), cond)
	if err != nil {
		return err
	}
	a.Header().Set("Content-Type", "application/json")
	a.Flush()
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case res, ok := <-result:
		if !ok {
			return fmt.Errorf("wait for %s: ended without a result", id(r))
		}
		return gone(json.NewEncoder(a).Encode(waitResponse(res)))
	}
}

func waitCondition(a *answer, r *http.Request) (container.WaitCondition, error) {
	q := queryOf(r)
	c := container.WaitCondition(q.Get("condition"))
	if a.v < 30 { // the parameter was not there yet
		c = ""
	}
	switch c {
	case "":
		c = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		q.bad("invalid condition: %q", c)
	}
	return c, q.err
}

func waitResponse(res isle.WaitResult) container.WaitResponse {
	resp := container.WaitResponse{StatusCode: int64(res.ExitCode)}
	if res.Err != nil {
		resp.Error = &container.WaitExitError{Message: message(res.Err)}
	}
	return resp
}

func (s *Server) containerStats(a *answer, r *http.Request) error {
	q := queryOf(r)
	stream, oneShot := q.boolOr("stream", true), q.bool("one-shot") && a.v >= 41
	if q.err == nil && stream && oneShot {
		q.bad("cannot have stream=true and one-shot=true")
	}
	if q.err != nil {
		return q.err
	}
	a.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(flushing{a})
	return s.Backend.ContainerStats(r.Context(), id(r), stream, oneShot, func(st container.StatsResponse) error {
		if a.v < 52 {
			st.OSType = ""
		}
		return gone(enc.Encode(st))
	})
}

func (s *Server) containerTop(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	top, err := s.Backend.ContainerTop(r.Context(), id(r), q.Get("ps_args"))
	if err != nil {
		return err
	}
	return a.ok(top)
}

func (s *Server) containersPrune(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(pruneFilters...)
	if q.err != nil {
		return q.err
	}
	rep, err := s.Backend.ContainersPrune(r.Context(), f)
	if err != nil {
		return err
	}
	return a.ok(rep)
}

func (s *Server) containerCommit(a *answer, r *http.Request) error {
	var body configBody
	if err := decode(a, r, &body); err != nil {
		return err
	}
	q := queryOf(r)
	if q.err == nil && q.Get("container") == "" {
		q.bad("no container was named")
	}
	if q.err != nil {
		return q.err
	}
	opts := isle.CommitOptions{
		Repo: q.Get("repo"), Tag: q.Get("tag"), Author: q.Get("author"), Comment: q.Get("comment"),
		Pause: q.boolOr("pause", true), Changes: q.Values["changes"], Config: body.config(),
	}
	imageID, err := s.Backend.ContainerCommit(r.Context(), q.Get("container"), opts)
	if err != nil {
		return err
	}
	return a.json(http.StatusCreated, container.CommitResponse{ID: imageID})
}
