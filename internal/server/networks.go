package server

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

var networkFilters = []string{"dangling", "driver", "id", "label", "name", "scope", "type"}

func (s *Server) networkList(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(networkFilters...)
	if q.err != nil {
		return q.err
	}
	all, err := s.Backend.NetworkList(r.Context(), f)
	if err != nil {
		return err
	}
	listed := make([]any, 0, len(all))
	for _, n := range all {
		one, err := s.listedNetwork(a, r, n)
		if err != nil {
			return err
		}
		listed = append(listed, one)
	}
	return a.ok(listed)
}

// listedNetwork is a network with its containers before 1.28, without after.
func (s *Server) listedNetwork(a *answer, r *http.Request, n network.Summary) (any, error) {
	if a.v >= 28 {
		return networkListed(a.v, n.Network), nil
	}
	in, err := s.Backend.NetworkInspect(r.Context(), n.ID, false)
	if errdefs.IsNotFound(err) { // removed since it was listed
		return networkListed(a.v, n.Network), nil
	}
	return networkFor(a.v, in, ourNetwork{}), err
}

func (s *Server) networkInspect(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	n, err := s.Backend.NetworkInspect(r.Context(), id(r), q.bool("verbose"))
	if err != nil {
		return err
	}
	if scope := q.Get("scope"); scope != "" && a.v >= 31 && scope != n.Scope {
		return fmt.Errorf("network %s not found: %w", id(r), errdefs.ErrNotFound)
	}
	overlaps, err := s.Backend.NetworkOverlaps(r.Context(), n.ID)
	if err != nil {
		return err
	}
	uplink, err := s.Backend.NetworkUplink(r.Context(), n.ID)
	if err != nil {
		return err
	}
	results, err := s.Backend.NetworkResults(r.Context(), n.ID)
	if err != nil {
		return err
	}
	ours := ourNetwork{Overlaps: overlaps, Uplink: uplink, Results: results}
	if q.bool("verbose") {
		ours.Cluster, err = s.Backend.NetworkSpan(r.Context(), n.ID)
	}
	if err != nil {
		return err
	}
	return a.ok(networkFor(a.v, n, ours))
}

func (s *Server) networkCreate(a *answer, r *http.Request) error {
	var req network.CreateRequest
	if err := require(a, r, &req); err != nil {
		return err
	}
	if a.v < 48 {
		req.EnableIPv4 = nil
	}
	resp, err := s.Backend.NetworkCreate(r.Context(), req)
	if err != nil {
		return err
	}
	return a.json(http.StatusCreated, resp)
}

func (s *Server) networkRemove(a *answer, r *http.Request) error {
	return a.done(s.Backend.NetworkRemove(r.Context(), id(r)))
}

func (s *Server) networkConnect(a *answer, r *http.Request) error {
	var req network.ConnectRequest
	if err := require(a, r, &req); err != nil {
		return err
	}
	if ep := req.EndpointConfig; ep != nil {
		ep.MacAddress = nil // ignored until 1.54
		if a.v < 48 {
			ep.GwPriority = 0
		}
	}
	if err := s.Backend.NetworkConnect(r.Context(), id(r), req); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}

func (s *Server) networkDisconnect(a *answer, r *http.Request) error {
	var req network.DisconnectRequest
	if err := require(a, r, &req); err != nil {
		return err
	}
	if err := s.Backend.NetworkDisconnect(r.Context(), id(r), req.Container, req.Force); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}

func (s *Server) networksPrune(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(pruneFilters...)
	if q.err != nil {
		return q.err
	}
	rep, err := s.Backend.NetworksPrune(r.Context(), f)
	if err != nil {
		return err
	}
	return a.ok(rep)
}
