package bridge_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/rogpeppe/go-internal/txtar"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/drivertest"
	"isle/internal/reconcile"
)

var update = flag.Bool("update", false, "write the plans into testdata")

func TestConformance(t *testing.T) {
	drivertest.Run(t, bridge.Driver{},
		map[string]string{"com.docker.network.bridge.name": "br0"},
		map[string]string{"com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.enable_ip_masquerade": "false"},
		map[string]string{"com.docker.network.bridge.inhibit_ipv4": "true", "com.docker.network.driver.mtu": "9000"},
		map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "routed", "com.docker.network.bridge.gateway_mode_ipv6": "nat-unprotected"},
		map[string]string{"com.docker.network.bridge.trusted_host_interfaces": "eth1:eth2", "isle.bridge.source_guard": "false"},
	)
}

// TestPlan: each file has a network, its endpoints and what the kernel is to
// hold for them.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, file) })
	}
}

func golden(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var n network.Network
	var eps []network.Endpoint
	host := drivertest.Host
	var want string
	for i, f := range a.Files {
		switch f.Name {
		case "network.json":
			read(t, f.Data, &n)
		case "host.json":
			read(t, f.Data, &host)
		case "plan":
			want = string(f.Data)
			a.Files = a.Files[:i]
		default:
			var in struct {
				network.Endpoint
				Ports  []network.Publish
				Router bool
			}
			read(t, f.Data, &in)
			in.Publish, in.Endpoint.Router = in.Ports, in.Router
			eps = append(eps, in.Endpoint)
		}
	}
	s := netspec.State{}
	if err := (bridge.Driver{}).Plan(s, n, eps, host); err != nil {
		t.Fatal(err)
	}
	got := reconcile.Dump(s)
	if *update {
		a.Files = append(a.Files, txtar.File{Name: "plan", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("plan is\n%s\nwant\n%s", got, want)
	}
}

func read(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsRefused(t *testing.T) {
	for k, v := range map[string]string{
		"com.docker.network.bridge.name":                    "much-too-long-for-a-device",
		"com.docker.network.bridge.enable_icc":              "maybe",
		"com.docker.network.bridge.enable_ip_masquerade":    "2",
		"com.docker.network.bridge.inhibit_ipv4":            "x",
		"com.docker.network.driver.mtu":                     "12",
		"com.docker.network.bridge.gateway_mode_ipv4":       "bridged",
		"com.docker.network.bridge.gateway_mode_ipv6":       "isolated", // and the network is not internal
		"com.docker.network.bridge.trusted_host_interfaces": "eth1:a/b",
		"isle.bridge.source_guard":                          "perhaps",
		"isle.bridge.mode":                                  "routed",
		"com.docker.network.bridge.host_binding_ipv4":       "localhost",
		"com.docker.network.container_iface_prefix":         "a/b",
		"com.docker.network.bridge.advertise_addr_nmsgs":    "4",
		"com.docker.network.bridge.advertise_addr_ms":       "1",
	} {
		n := drivertest.Network(bridge.Driver{}, map[string]string{k: v}, false, false)
		err := bridge.Driver{}.Validate(n)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), k) {
			t.Errorf("%s=%s: err = %v, want InvalidArgument that names the option", k, v, err)
		}
	}
}

// TestSourcesRefused : what a container may send from is a prefix or "any".
func TestSourcesRefused(t *testing.T) {
	n := drivertest.Network(bridge.Driver{}, nil, false, false)
	for _, v := range []string{"10.0.0.1", "10.0.0.0/33", "10.0.0.0/8;fd00::/8", "all"} {
		ep := drivertest.Endpoint(n, 0)
		ep.Options = map[string]string{"isle.endpoint.sources": v}
		err := bridge.Driver{}.Plan(netspec.State{}, n, []network.Endpoint{ep}, drivertest.Host)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: err = %v, want InvalidArgument", v, err)
		}
	}
}

func TestEndpointSysctlsRefused(t *testing.T) {
	n := drivertest.Network(bridge.Driver{}, nil, false, false)
	for _, v := range []string{
		"net.ipv4.ip_forward=1", "net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.IFNAME.x", "kernel.conf.IFNAME.a.b=1",
		"net.ipv4.conf.IFNAME.../../kernel/panic=1", "net.core.conf.IFNAME.x=1",
	} {
		ep := drivertest.Endpoint(n, 0)
		ep.Options = map[string]string{"com.docker.network.endpoint.sysctls": v}
		err := bridge.Driver{}.Plan(netspec.State{}, n, []network.Endpoint{ep}, drivertest.Host)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: err = %v, want InvalidArgument", v, err)
		}
	}
}

// TestEndpointMTU: an endpoint may ask for less than its network has. When the way
// out of the host gets narrower than that, the endpoint follows: it must not be
// left without a plan.
func TestEndpointMTU(t *testing.T) {
	for _, c := range []struct {
		v    string
		ipv6 bool
		net  string
		host int
		mtu  int // 0: refused
	}{
		{"", false, "", 1450, 1450}, {"1400", false, "", 1450, 1400}, {"1400", false, "", 1300, 1300}, {"600", false, "", 1450, 600}, {"1400", false, "", 0, 1400},
		{"1401", false, "1400", 1500, 0}, {"1400", false, "1400", 1300, 1400}, {"600", true, "", 1450, 0}, {"x", false, "", 1450, 0}, {"67", false, "", 1450, 0},
		{"", true, "", 1200, 1280}, {"", false, "", 1200, 1200}, {"1300", true, "", 1200, 1280},
	} {
		n := drivertest.Network(bridge.Driver{}, map[string]string{"com.docker.network.driver.mtu": c.net}, c.ipv6, false)
		ep := drivertest.Endpoint(n, 0)
		ep.Options = map[string]string{"isle.endpoint.mtu": c.v}
		host := drivertest.Host
		host.MTU = c.host
		s := netspec.State{}
		err := bridge.Driver{}.Plan(s, n, []network.Endpoint{ep}, host)
		l, _ := s[netspec.Link{Name: ep.HostInterface}.Key()].(netspec.Link)
		if c.mtu == 0 && !errdefs.IsInvalidArgument(err) || c.mtu != 0 && (err != nil || l.MTU != c.mtu) {
			t.Errorf("%+v: MTU %d, %v", c, l.MTU, err)
		}
	}
}

// TestNarrowForIPv6: the kernel has no IPv6 on links of less than 1,280 bytes.
func TestNarrowForIPv6(t *testing.T) {
	opts := map[string]string{"com.docker.network.driver.mtu": "1279"}
	if err := (bridge.Driver{}).Validate(drivertest.Network(bridge.Driver{}, opts, false, false)); err != nil {
		t.Error(err)
	}
	if err := (bridge.Driver{}).Validate(drivertest.Network(bridge.Driver{}, opts, true, false)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("with IPv6: %v", err)
	}
}
