package server

import (
	"net/http"

	"isle/api"
)

// isleRoutes are Isle's own endpoints. Their version is in their path and is
// none of Docker's.
func (s *Server) isleRoutes() {
	s.handle("POST /isle/v1/containers/{id}/publish", s.containerPublish)
	s.handle("POST /isle/v1/containers/{id}/unpublish", s.containerUnpublish)
	s.handle("GET /isle/v1/networks/{id}/dns", s.networkNames)
	s.handle("GET /isle/v1/network/exposure", s.networkExposure)
	s.handle("GET /isle/v1/network/doctor", s.networkDoctor)
	s.handle("POST /isle/v1/cni/{id}", s.cni)
	s.clusterRoutes()
}

func (s *Server) containerPublish(a *answer, r *http.Request) error {
	var req api.PublishRequest
	if err := require(a, r, &req); err != nil {
		return err
	}
	resp, err := s.Backend.ContainerPublish(r.Context(), id(r), req)
	if err != nil {
		return err
	}
	return a.ok(resp)
}

func (s *Server) containerUnpublish(a *answer, r *http.Request) error {
	var req api.UnpublishRequest
	if err := require(a, r, &req); err != nil {
		return err
	}
	resp, err := s.Backend.ContainerUnpublish(r.Context(), id(r), req)
	if err != nil {
		return err
	}
	return a.ok(resp)
}

func (s *Server) networkNames(a *answer, r *http.Request) error {
	names, err := s.Backend.NetworkNames(r.Context(), id(r))
	if err != nil {
		return err
	}
	return a.ok(list(names))
}

func (s *Server) networkExposure(a *answer, r *http.Request) error {
	all, err := s.Backend.NetworkExposure(r.Context())
	if err != nil {
		return err
	}
	all.Entries = list(all.Entries)
	return a.ok(all)
}

func (s *Server) networkDoctor(a *answer, r *http.Request) error {
	found, err := s.Backend.NetworkDoctor(r.Context())
	if err != nil {
		return err
	}
	found.Findings = list(found.Findings)
	return a.ok(found)
}
