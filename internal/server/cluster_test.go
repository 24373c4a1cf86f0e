package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/api"
	"isle/internal/server"
	"isle/internal/server/servertest"
)

// oneHost is a cluster that remembers what it was asked.
type oneHost struct{ asked any }

func (c *oneHost) Init(_ context.Context, r api.ClusterInitRequest) (api.ClusterHost, error) {
	c.asked = r
	return api.ClusterHost{ID: "1"}, nil
}

func (c *oneHost) Join(_ context.Context, r api.ClusterJoinRequest) (api.ClusterHost, error) {
	c.asked = r
	return api.ClusterHost{}, fmt.Errorf("the join token has expired: permission: %w", errdefs.ErrPermissionDenied)
}

func (c *oneHost) Leave(_ context.Context, r api.ClusterLeaveRequest) error { c.asked = r; return nil }

func (c *oneHost) Token(_ context.Context, r api.ClusterTokenRequest) (api.ClusterToken, error) {
	c.asked = r
	return api.ClusterToken{Token: "t"}, nil
}

func (c *oneHost) Hosts(context.Context) ([]api.ClusterHost, error) { return nil, nil }

func (c *oneHost) Remove(_ context.Context, host string) error {
	c.asked = host
	return fmt.Errorf("there is no host %s: %w", host, errdefs.ErrNotFound)
}

func (c *oneHost) Status(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{}, fmt.Errorf("there is no quorum: %w", errdefs.ErrUnavailable)
}

func TestClusterEndpoints(t *testing.T) {
	c := &oneHost{}
	srv := httptest.NewServer(server.New(server.Config{Backend: servertest.New(), Cluster: c}).Handler())
	defer srv.Close()
	for _, row := range []struct {
		method, path, body string
		status             int
		says               string
		asked              any
	}{
		{"POST", "init", `{"Name":"a","Members":5}`, 200, `"ID":"1"`, api.ClusterInitRequest{Name: "a", Members: 5}},
		{"POST", "init", ``, 200, `"ID":"1"`, api.ClusterInitRequest{}},
		{"POST", "init", `{"Members":"x"}`, 400, `message`, nil},
		{"POST", "join", `{"Token":"t","Hosts":["h"]}`, 403, "has expired", nil},
		{"POST", "leave", `{"Force":true}`, 200, `{}`, api.ClusterLeaveRequest{Force: true}},
		{"POST", "token", `{"Rotate":true}`, 200, `"Token":"t"`, api.ClusterTokenRequest{Rotate: true}},
		{"GET", "hosts", ``, 200, `[]`, nil},
		{"DELETE", "hosts/web", ``, 404, "no host web", "web"},
		{"GET", "status", ``, 503, "no quorum", nil},
	} {
		c.asked = nil
		req, _ := http.NewRequest(row.method, srv.URL+"/isle/v1/cluster/"+row.path, strings.NewReader(row.body))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		resp.Write(&b)
		resp.Body.Close()
		if resp.StatusCode != row.status || !strings.Contains(b.String(), row.says) || row.asked != nil && c.asked != row.asked {
			t.Errorf("%s %s %s: %s\nasked %+v", row.method, row.path, row.body, b.String(), c.asked)
		}
	}
}

// TestNoClusters: an isled without clusters says so.
func TestNoClusters(t *testing.T) {
	h := serve(t, fake())
	h.want(501, "GET", "/isle/v1/cluster/status", "")
}
