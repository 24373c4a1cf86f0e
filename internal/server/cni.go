package server

import (
	"encoding/json"
	"net/http"
	"strings"

	"isle/internal/cni"
)

// cni carries out a command of the plugin isle-cni: the last segment of the path is the
// command, the query has what is in its environment, the body is the configuration.
// Answers are what the plugin writes to its standard output.
func (s *Server) cni(a *answer, r *http.Request) error {
	var config json.RawMessage
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	if err := require(a, r, &config); err != nil {
		return s.cniFailure(a, r, nil, cni.With(cni.CodeDecode, err))
	}
	out, err := s.Backend.CNI(r.Context(), cni.Request{
		Command: strings.ToUpper(id(r)), ContainerID: q.Get("containerID"), NetNS: q.Get("netns"), IfName: q.Get("ifname"), Args: q.Get("args"), Config: config,
	})
	switch {
	case err != nil:
		return s.cniFailure(a, r, config, err)
	case out == nil:
		a.WriteHeader(http.StatusNoContent)
		return nil
	}
	return a.ok(json.RawMessage(out))
}

// cniFailure answers with an error in the form of CNI.
func (s *Server) cniFailure(a *answer, r *http.Request, config []byte, err error) error {
	text, hint := message(err), ""
	if i := strings.LastIndex(text, " (hint: "); i >= 0 {
		text, hint = text[:i], strings.TrimSuffix(text[i+len(" (hint: "):], ")")
	}
	status := statusOf(err)
	if status >= http.StatusInternalServerError {
		s.Log.Error("CNI command failed", "command", id(r), "container", r.URL.Query().Get("containerID"), "error", err)
	}
	return a.json(status, cni.Failure{CNIVersion: cni.VersionOf(config), Code: cni.CodeOf(err), Msg: text, Details: hint})
}
