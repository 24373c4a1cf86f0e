package server

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/registry"
	swarmtypes "github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

func (s *Server) ping(a *answer, r *http.Request) error {
	h := a.Header()
	h.Set("Builder-Version", s.BuilderVersion)
	h.Set("Swarm", string(swarmtypes.LocalNodeStateInactive))
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return a.empty(http.StatusOK)
	}
	_, err := io.WriteString(a, "OK")
	return gone(err)
}

func (s *Server) version(a *answer, r *http.Request) error {
	v, err := s.Backend.Version(r.Context())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = MaxVersion, MinVersion
	v.Components = slices.Clone(v.Components)
	for i, c := range v.Components {
		if c.Name == "Engine" {
			d := maps.Clone(c.Details)
			if d == nil {
				d = map[string]string{}
			}
			d["ApiVersion"], d["MinAPIVersion"] = MaxVersion, MinVersion
			v.Components[i].Details = d
		}
	}
	if a.v < 35 {
		v.Platform, v.Components = system.PlatformInfo{}, nil
	}
	return a.ok(v)
}

func (s *Server) info(a *answer, r *http.Request) error {
	i, err := s.Backend.Info(r.Context())
	if err != nil {
		return err
	}
	return a.ok(infoFor(a.v, i))
}

func (s *Server) login(a *answer, r *http.Request) error {
	var cred registry.AuthConfig
	if err := require(a, r, &cred); err != nil {
		return err
	}
	resp, err := s.Backend.Login(r.Context(), cred)
	if err != nil {
		return err
	}
	return a.ok(resp)
}

var everyObject = []system.DiskUsageObject{system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject}

// diskUsage may take long: requests that come while it is computed get the
// same result, and it is not given up when the first of them leaves.
func (s *Server) diskUsage(a *answer, r *http.Request) error {
	q := queryOf(r)
	objects := usageObjects(a.v, q)
	if q.err != nil {
		return q.err
	}
	key := make([]string, 0, len(objects))
	for _, o := range objects {
		key = append(key, string(o))
	}
	ch := s.df.DoChan(strings.Join(key, ","), func() (any, error) {
		return s.Backend.DiskUsage(context.WithoutCancel(r.Context()), objects)
	})
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case res := <-ch:
		if res.Err != nil {
			return res.Err
		}
		return a.ok(usageFor(a.v, res.Val.(system.DiskUsage), q.bool("verbose")))
	}
}

// usageObjects are in a fixed order, each once.
func usageObjects(v version, q *query) []system.DiskUsageObject {
	asked := q.Values["type"]
	if v < 42 || len(asked) == 0 {
		return everyObject
	}
	for _, t := range asked {
		if !slices.Contains(everyObject, system.DiskUsageObject(t)) {
			q.bad("unknown object type: %s", t)
		}
	}
	var objects []system.DiskUsageObject
	for _, o := range everyObject {
		if slices.Contains(asked, string(o)) {
			objects = append(objects, o)
		}
	}
	return objects
}
