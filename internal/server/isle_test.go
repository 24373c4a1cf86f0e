package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"isle/api"
	isle "isle/internal/container"
	"isle/internal/server/servertest"
)

// TestUpdatePortBindings: Docker's endpoint takes the ports too. Without them,
// as Docker's clients send it, they are none of its business.
func TestUpdatePortBindings(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.create("x", "sleep", "")
	for body, want := range map[string]network.PortMap{
		`{"Memory":1}`:                     nil,
		`{"Memory":1,"PortBindings":null}`: nil,
		`{"PortBindings":{}}`:              {},
		`{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}}`: {network.MustParsePort("80/tcp"): {{HostPort: "8080"}}},
	} {
		h.want(200, "POST", "/v1.52/containers/x/update", body)
		got := b.Last.(isle.UpdateOptions)
		if (got.PortBindings == nil) != (want == nil) || fmt.Sprint(got.PortBindings) != fmt.Sprint(want) || strings.Contains(body, "Memory") != (got.Memory == 1) {
			t.Errorf("%s: %+v", body, got)
		}
	}
	for _, bad := range []string{`{"PortBindings":[]}`, `{"PortBindings":{"x":[]}}`, `{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}`} {
		h.want(400, "POST", "/v1.52/containers/x/update", bad)
	}
}

// TestIsleEndpoints: they are beside Docker's, under a version of their own.
func TestIsleEndpoints(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.create("x", "sleep", "")
	h.want(200, "POST", "/isle/v1/containers/x/publish", `{"Ports":["8443:443"],"Replace":true}`)
	if got, ok := b.Last.(api.PublishRequest); !ok || !got.Replace || !slices.Equal(got.Ports, []string{"8443:443"}) {
		t.Errorf("%+v", b.Last)
	}
	h.want(200, "POST", "/isle/v1/containers/x/unpublish", `{"Ports":["8443"]}`)
	if got, ok := b.Last.(api.UnpublishRequest); !ok || !slices.Equal(got.Ports, []string{"8443"}) {
		t.Errorf("%+v", b.Last)
	}
	for path, want := range map[string]string{
		"/isle/v1/networks/app/dns":     "[]",
		"/isle/v1/network/exposure":     `{"Entries":[]}`,
		"/isle/v1/network/doctor":       `{"Findings":[]}`,
		"//isle/v1/network/exposure/":   `{"Entries":[]}`,
		"/v1.52/isle/v1/network/doctor": `{"Findings":[]}`, // an old client may put its version before everything
	} {
		if got := h.want(200, "GET", path, ""); strings.TrimSpace(got) != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	h.want(400, "POST", "/isle/v1/containers/x/publish", "")
	h.want(400, "POST", "/isle/v1/containers/x/publish", `{"Ports":"8443"}`)
	h.want(404, "POST", "/isle/v1/containers/nobody/publish", `{"Ports":["1:1"]}`)
	h.want(404, "GET", "/isle/v2/network/doctor", "")
	h.want(404, "GET", "/isle/v1/containers/x/publish", "")
}

// without is a backend that has no reports.
type without struct{ *servertest.Backend }

func (without) NetworkExposure(context.Context) (api.Exposure, error) {
	return api.Exposure{}, fmt.Errorf("this isled cannot tell what is exposed: %w", errdefs.ErrNotImplemented)
}

func TestReportThatIsNotThere(t *testing.T) {
	h := serve(t, without{fake()})
	if m := h.message(501, "GET", "/isle/v1/network/exposure", ""); !strings.HasPrefix(m, "this isled cannot tell what is exposed") {
		t.Error(m)
	}
}

// counted is a backend whose network has addresses, which a VPN has too.
type counted struct{ *servertest.Backend }

func (counted) NetworkInspect(context.Context, string, bool) (network.Inspect, error) {
	subnets := network.SubnetStatuses{netip.MustParsePrefix("10.1.0.0/24"): {IPsInUse: 4, DynamicIPsAvailable: 252}}
	return network.Inspect{Network: servertest.Network, Status: &network.Status{IPAM: network.IPAMStatus{Subnets: subnets}}}, nil
}

func (counted) NetworkOverlaps(context.Context, string) ([]string, error) {
	return []string{"route 10.0.0.0/8 on vpn0"}, nil
}

func (counted) NetworkSpan(context.Context, string) (*api.NetworkSpan, error) {
	return &api.NetworkSpan{VNI: 4097, Hosts: []api.SpanHost{{ID: "1", Name: "h1", Containers: 2}}}, nil
}

func (counted) NetworkUplink(context.Context, string) (string, error) { return "eth0: up", nil }
func (counted) NetworkResults(context.Context, string) (map[string]json.RawMessage, error) {
	return map[string]json.RawMessage{"c1": json.RawMessage(`{"ips":[]}`)}, nil
}

// TestNetworkUsage: how many addresses of a network are used, in Docker's words and
// since the version that has them; and who else uses them.
func TestNetworkUsage(t *testing.T) {
	h := serve(t, counted{fake()})
	for v, want := range map[string][2]bool{"1.47": {false, false}, "1.51": {false, true}, "1.52": {true, true}} {
		text := h.want(200, "GET", "/v"+v+"/networks/bridge", "")
		usage := strings.Contains(text, `"Status":{"IPAM":{"Subnets":{"10.1.0.0/24":{"IPsInUse":4,"DynamicIPsAvailable":252}}}}`)
		overlaps := strings.Contains(text, `"Overlaps":["route 10.0.0.0/8 on vpn0"]`)
		if uplink := strings.Contains(text, `"Uplink":"eth0: up","Results":{"c1":{"ips":[]}}`); uplink != want[1] {
			t.Errorf("%s: %s", v, text)
		}
		verbose := h.want(200, "GET", "/v"+v+"/networks/bridge?verbose=true", "")
		if strings.Contains(text, "4097") || strings.Contains(verbose, `"Cluster":{"VNI":4097`) != want[1] {
			t.Errorf("%s: %s", v, verbose)
		}
		if usage != want[0] || strings.Contains(text, "Status") != want[0] || overlaps != want[1] {
			t.Errorf("%s: %s", v, text)
		}
	}
}
