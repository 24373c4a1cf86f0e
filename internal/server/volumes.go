package server

import (
	"net/http"

	volumetypes "github.com/moby/moby/api/types/volume"

	"isle/internal/filters"
)

var (
	volumeFilters      = []string{"dangling", "driver", "label", "name"}
	volumePruneFilters = []string{"label", "label!", "all"}
)

func (s *Server) volumeList(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(volumeFilters...)
	if q.err != nil {
		return q.err
	}
	all, err := s.Backend.VolumeList(r.Context(), f)
	if err != nil {
		return err
	}
	all.Volumes = list(all.Volumes)
	return a.ok(all)
}

func (s *Server) volumeInspect(a *answer, r *http.Request) error {
	v, err := s.Backend.VolumeInspect(r.Context(), id(r))
	if err != nil {
		return err
	}
	return a.ok(v)
}

func (s *Server) volumeCreate(a *answer, r *http.Request) error {
	var req volumetypes.CreateRequest
	if err := decode(a, r, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return errSwarm
	}
	v, err := s.Backend.VolumeCreate(r.Context(), req)
	if err != nil {
		return err
	}
	return a.json(http.StatusCreated, v)
}

func (s *Server) volumeRemove(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	return a.done(s.Backend.VolumeRemove(r.Context(), id(r), q.bool("force")))
}

func (s *Server) volumesPrune(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(volumePruneFilters...)
	if q.err != nil {
		return q.err
	}
	if a.v < 42 { // named volumes went too
		if f == nil {
			f = filters.Args{}
		}
		f["all"] = []string{"true"}
	}
	rep, err := s.Backend.VolumesPrune(r.Context(), f)
	if err != nil {
		return err
	}
	return a.ok(rep)
}
