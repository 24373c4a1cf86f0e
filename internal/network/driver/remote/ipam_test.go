package remote_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// TestAddresses : what a plugin for addresses is told, word for word.
func TestAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("IpamDriver", map[string]any{
		"IpamDriver.GetCapabilities":         `{"RequiresMACAddress":true,"RequiresRequestReplay":true}`,
		"IpamDriver.GetDefaultAddressSpaces": `{"LocalDefaultAddressSpace":"here","GlobalDefaultAddressSpace":"all"}`,
		"IpamDriver.RequestPool":             `{"PoolID":"here/1","Pool":"10.5.0.7/16","Data":{"com.docker.network.gateway":"10.5.0.254/16","more":"x"}}`,
		"IpamDriver.RequestAddress":          `{"Address":"10.5.0.9/16"}`,
	})
	s.run("x", f)
	r := s.registry()
	err := r.LookUpIPAM(t.Context(), "x")
	p := r.IPAM("x")
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.RequestPool(t.Context(), network.PoolWish{Subnet: netip.MustParsePrefix("10.5.0.0/16"), Range: netip.MustParsePrefix("10.5.9.0/24"), Options: map[string]string{"tenant": "a"}})
	if err != nil || g.ID != "here/1" || g.Subnet != netip.MustParsePrefix("10.5.0.0/16") || g.Gateway != addr("10.5.0.254") || g.Data["more"] != "x" {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := p.RequestPool(t.Context(), network.PoolWish{}); err != nil {
		t.Fatal(err)
	}
	mac := netspec.MAC{2, 0, 0, 0, 0, 1}
	for _, want := range []netip.Addr{{}, addr("10.5.0.9")} {
		for _, gateway := range []bool{true, false} {
			if a, err := p.RequestAddress(t.Context(), g.ID, want, gateway, mac); err != nil || a != netip.MustParsePrefix("10.5.0.9/16") {
				t.Fatal(a, err)
			}
		}
	}
	if err := p.ReleaseAddress(t.Context(), g.ID, addr("10.5.0.9")); err != nil {
		t.Fatal(err)
	}
	if err := p.ReleasePool(t.Context(), g.ID); err != nil {
		t.Fatal(err)
	}
	golden(t, "addresses.txt", strings.Join(f.heard, "\n")+"\n")
	if n, err := s.registry().IPAM("x").Needs(t.Context()); err != nil || !n.MAC || !n.Replay {
		t.Error(n, err)
	}
}

// TestNoMAC : who does not ask for a MAC address is not told one. The call for that
// need not be there.
func TestNoMAC(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("IpamDriver", map[string]any{"IpamDriver.GetCapabilities": failure{404, "404 page not found"}, "IpamDriver.RequestAddress": `{"Address":"10.5.0.9/16"}`})
	s.run("x", f)
	if _, err := s.registry().IPAM("x").RequestAddress(t.Context(), "p", netip.Addr{}, false, netspec.MAC{2}); err != nil {
		t.Fatal(err)
	}
	if got := f.heard[len(f.heard)-1]; got != `IpamDriver.RequestAddress {"PoolID":"p","Address":"","Options":{}}` {
		t.Error(got)
	}
}

// TestPoolRefused : what cannot be taken is given back.
func TestPoolRefused(t *testing.T) {
	t.Parallel()
	subnet := netip.MustParsePrefix("10.5.0.0/16")
	back := " ReleasePool"
	for text, c := range map[string]struct {
		answer any
		want   network.PoolWish
		back   string
	}{
		"remote: pools are out":                         {`{"Error":"pools are out"}`, network.PoolWish{}, ""},
		"IpamDriver.RequestPool: pools are out":         {failure{500, `{"Err":"pools are out"}`}, network.PoolWish{}, ""},
		"invalid PoolID of 0 bytes":                     {`{"Pool":"10.5.0.0/16"}`, network.PoolWish{}, ""},
		"invalid PoolID of 2000 bytes":                  {`{"Pool":"10.5.0.0/16","PoolID":"` + strings.Repeat("x", 2000) + `"}`, network.PoolWish{}, ""},
		"invalid CIDR address: 10.5":                    {`{"Pool":"10.5","PoolID":"p"}`, network.PoolWish{}, back},
		"asked for pool 10.5.0.0/16, got 10.6.0.0/16":   {`{"Pool":"10.6.0.0/16","PoolID":"p"}`, network.PoolWish{Subnet: subnet}, back},
		"asked for a pool of IPv6, got 10.6.0.0/16":     {`{"Pool":"10.6.0.0/16","PoolID":"p"}`, network.PoolWish{IPv6: true}, back},
		"asked for a pool of IPv4, got fd00::/64":       {`{"Pool":"fd00::/64","PoolID":"p"}`, network.PoolWish{}, back},
		`failed to parse gateway address "10.7.0.1/16"`: {`{"Pool":"10.6.0.0/16","PoolID":"p","Data":{"com.docker.network.gateway":"10.7.0.1/16"}}`, network.PoolWish{}, back},
		"range 10.5.9.0/24 without a subnet":            {nil, network.PoolWish{Range: netip.MustParsePrefix("10.5.9.0/24")}, "none"},
	} {
		s := newSite(t)
		f := answering("IpamDriver", map[string]any{"IpamDriver.RequestPool": c.answer})
		s.run("x", f)
		_, err := s.registry().IPAM("x").RequestPool(t.Context(), c.want)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
		if want := "GetDefaultAddressSpaces RequestPool" + c.back; c.back != "none" && f.calls() != want {
			t.Errorf("%s: calls %s", text, f.calls())
		}
	}
}

// TestAddressRefused : the same for addresses.
func TestAddressRefused(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		answer string
		want   netip.Addr
		back   string
	}{
		"no address returned":                         {`{}`, netip.Addr{}, ""},
		"invalid CIDR address: 10.5.0.9":              {`{"Address":"10.5.0.9"}`, netip.Addr{}, ""},
		"invalid address 127.0.0.1/8":                 {`{"Address":"127.0.0.1/8"}`, netip.Addr{}, " ReleaseAddress"},
		"invalid address 224.0.0.1/8":                 {`{"Address":"224.0.0.1/8"}`, netip.Addr{}, " ReleaseAddress"},
		"asked for address 10.5.0.8, got 10.5.0.9/16": {`{"Address":"10.5.0.9/16"}`, addr("10.5.0.8"), " ReleaseAddress"},
		"remote: full":                                {`{"Error":"full"}`, netip.Addr{}, ""},
	} {
		s := newSite(t)
		f := answering("IpamDriver", map[string]any{"IpamDriver.RequestAddress": c.answer})
		s.run("x", f)
		_, err := s.registry().IPAM("x").RequestAddress(t.Context(), "p", c.want, false, netspec.MAC{})
		if err == nil || !strings.Contains(err.Error(), "plugin x: ") || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
		if f.calls() != "RequestAddress"+c.back {
			t.Errorf("%s: calls %s", text, f.calls())
		}
	}
}

// TestReleaseTwice : what is not there is given back.
func TestReleaseTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("IpamDriver", map[string]any{"IpamDriver.ReleasePool": `{"Error":"unknown pool p"}`, "IpamDriver.ReleaseAddress": failure{500, `{"Err":"address not found"}`}})
	s.run("x", f)
	p := s.registry().IPAM("x")
	if err := p.ReleasePool(t.Context(), "p"); err != nil {
		t.Error(err)
	}
	if err := p.ReleaseAddress(t.Context(), "p", addr("10.5.0.9")); err != nil {
		t.Error(err)
	}
	f.set("IpamDriver.ReleasePool", `{"Error":"pool p is in use"}`)
	if err := p.ReleasePool(t.Context(), "p"); err == nil || errdefs.IsNotFound(err) {
		t.Error(err)
	}
}
