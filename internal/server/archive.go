package server

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	isle "isle/internal/container"
)

const statHeader = "X-Docker-Container-Path-Stat"

// pathOf is the path that an archive request is about. "/." at its end has a
// meaning: it is not cleaned here.
func pathOf(r *http.Request) (string, *query, error) {
	q := queryOf(r)
	if q.err == nil && q.Get("path") == "" {
		q.bad("bad parameter: path is required")
	}
	return q.Get("path"), q, q.err
}

func setStat(a *answer, st container.PathStat) error {
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode the header: %w", err)
	}
	a.Header().Set(statHeader, base64.StdEncoding.EncodeToString(b))
	return nil
}

func (s *Server) archiveStat(a *answer, r *http.Request) error {
	path, _, err := pathOf(r)
	if err != nil {
		return err
	}
	st, err := s.Backend.ContainerStat(r.Context(), id(r), path)
	if err != nil {
		return err
	}
	if err := setStat(a, st); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}

func (s *Server) archiveGet(a *answer, r *http.Request) error {
	path, _, err := pathOf(r)
	if err != nil {
		return err
	}
	tar, st, err := s.Backend.ContainerGet(r.Context(), id(r), path)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := setStat(a, st); err != nil {
		return err
	}
	a.Header().Set("Content-Type", tarType)
	a.Flush()
	if _, err := io.Copy(a, tar); err != nil {
		return fmt.Errorf("archive of %s: %w", path, err)
	}
	return nil
}

func (s *Server) archivePut(a *answer, r *http.Request) error {
	path, q, err := pathOf(r)
	if err != nil {
		return err
	}
	opts := isle.PutOptions{NoOverwriteDirNonDir: q.bool("noOverwriteDirNonDir"), CopyUIDGID: q.bool("copyUIDGID")}
	if err := s.Backend.ContainerPut(r.Context(), id(r), path, upload{r.Body}, opts); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}

func (s *Server) containerExport(a *answer, r *http.Request) error {
	return s.Backend.ContainerExport(r.Context(), id(r), lazy{a, "application/octet-stream"})
}

func (s *Server) containerChanges(a *answer, r *http.Request) error {
	all, err := s.Backend.ContainerChanges(r.Context(), id(r))
	if err != nil {
		return err
	}
	return a.ok(all) // null for none, as Docker
}
