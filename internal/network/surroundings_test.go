package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/network"
	"isle/internal/network/doctor"
	"isle/internal/network/exposure"
	"isle/internal/network/publish"
)

// surrounded is a host with one interface that others come by, and no rules.
func surrounded(context.Context) (doctor.Host, error) {
	eth := exposure.Interface{Name: "eth0", Up: true, Addrs: []netip.Prefix{prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}}
	return doctor.Host{Host: exposure.Host{Interfaces: []exposure.Interface{eth}, Forward4: true, Forward6: true}}, nil
}

// TestRelayedPortsAreExposed: a port on an address of a family that the container
// has not is passed on by the socket that holds it, either way, to those who are
// allowed; but not SCTP, and not where ports are open at containers' own addresses.
func TestRelayedPortsAreExposed(t *testing.T) {
	yes, no := true, false
	routed := map[string]string{network.OptGatewayMode4: "routed"}
	for _, c := range []struct {
		what string
		n    api.CreateRequest
		port string
		from string
		want []string
	}{
		{"IPv4 alone", api.CreateRequest{EnableIPv6: &no}, "80/tcp", "", []string{"192.0.2.1 published anywhere", "2001:db8::1 relayed anywhere"}},
		{"IPv6 alone", api.CreateRequest{EnableIPv4: &no, EnableIPv6: &yes}, "80/tcp", "", []string{"2001:db8::1 published anywhere", "192.0.2.1 relayed anywhere"}},
		{"routed", api.CreateRequest{EnableIPv6: &no, Options: routed}, "80/tcp", "", []string{"172.17.0.2 direct whoever has a route to it"}},
		{"SCTP", api.CreateRequest{EnableIPv6: &no}, "80/sctp", "", []string{"192.0.2.1 published anywhere"}},
		{"for some", api.CreateRequest{EnableIPv6: &no}, "80/tcp", ";from=10.0.0.0/8", []string{"192.0.2.1 published 10.0.0.0/8"}},
		{"for some of both", api.CreateRequest{EnableIPv6: &no}, "80/tcp", ";from=10.0.0.0/8,2001:db8:7::/48", []string{"192.0.2.1 published 10.0.0.0/8", "2001:db8::1 relayed 2001:db8:7::/48"}},
	} {
		m := newWorld().start(t)
		m.Surroundings = surrounded
		c.n.Name = "app"
		create(t, m, c.n)
		req := request("web", nil, "app")
		specs, err := publish.ParseSpecs("8080:" + c.port + c.from)
		if err != nil {
			t.Fatal(err)
		}
		req.Ports.Specs = specs
		if _, err := m.Open(t.Context(), req); err != nil {
			t.Fatal(c.what, err)
		}
		list, err := m.Exposure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			got = append(got, fmt.Sprintf("%s %s %s", e.Address, e.By, e.From))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
