package server

import (
	"context"
	"net/http"

	"isle/api"
)

// Cluster is being one of several hosts. All but Init and Join are of class
// FailedPrecondition on a host that is in no cluster.
type Cluster interface {
	Init(ctx context.Context, req api.ClusterInitRequest) (api.ClusterHost, error)
	Join(ctx context.Context, req api.ClusterJoinRequest) (api.ClusterHost, error)
	Leave(ctx context.Context, req api.ClusterLeaveRequest) error
	Token(ctx context.Context, req api.ClusterTokenRequest) (api.ClusterToken, error)
	Hosts(ctx context.Context) ([]api.ClusterHost, error)
	Remove(ctx context.Context, host string) error
	Status(ctx context.Context) (api.ClusterStatus, error)
}

// Keys are those of this host for encrypted networks.
type Keys interface {
	// ClusterKey is the key, after a change of it was begun where that is asked for. Class
	// Unavailable: this host has none, or is in no cluster.
	ClusterKey(ctx context.Context, req api.ClusterKeyRequest) (api.ClusterKey, error)
}

func (s *Server) clusterRoutes() {
	s.handle("POST /isle/v1/cluster/init", inCluster(s, Cluster.Init))
	s.handle("POST /isle/v1/cluster/join", inCluster(s, Cluster.Join))
	s.handle("POST /isle/v1/cluster/token", inCluster(s, Cluster.Token))
	s.handle("POST /isle/v1/cluster/key", s.clusterKey)
	s.handle("POST /isle/v1/cluster/leave", inCluster(s, func(c Cluster, ctx context.Context, req api.ClusterLeaveRequest) (struct{}, error) {
		return struct{}{}, c.Leave(ctx, req)
	}))
	s.handle("GET /isle/v1/cluster/status", ofCluster(s, Cluster.Status))
	s.handle("GET /isle/v1/cluster/hosts", ofCluster(s, func(c Cluster, ctx context.Context) ([]api.ClusterHost, error) {
		all, err := c.Hosts(ctx)
		return list(all), err
	}))
	s.handle("DELETE /isle/v1/cluster/hosts/{id}", s.clusterRemove)
}

// inCluster is an endpoint that takes a body, and ofCluster one that takes none.
func inCluster[In, Out any](s *Server, do func(Cluster, context.Context, In) (Out, error)) handler {
	return func(a *answer, r *http.Request) error {
		var in In
		if err := decode(a, r, &in); err != nil {
			return err
		}
		return ofCluster(s, func(c Cluster, ctx context.Context) (Out, error) { return do(c, ctx, in) })(a, r)
	}
}

func ofCluster[Out any](s *Server, do func(Cluster, context.Context) (Out, error)) handler {
	return func(a *answer, r *http.Request) error {
		if s.Cluster == nil {
			return notImplemented("this isled knows of no clusters")
		}
		out, err := do(s.Cluster, r.Context())
		if err != nil {
			return err
		}
		return a.ok(out)
	}
}

func (s *Server) clusterRemove(a *answer, r *http.Request) error {
	return ofCluster(s, func(c Cluster, ctx context.Context) (struct{}, error) {
		return struct{}{}, c.Remove(ctx, id(r))
	})(a, r)
}

func (s *Server) clusterKey(a *answer, r *http.Request) error {
	var req api.ClusterKeyRequest
	if err := decode(a, r, &req); err != nil {
		return err
	}
	if s.Keys == nil {
		return notImplemented("this isled has no encrypted networks")
	}
	key, err := s.Keys.ClusterKey(r.Context(), req)
	if err != nil {
		return err
	}
	return a.ok(key)
}
