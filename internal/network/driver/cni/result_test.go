package cni

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"

	"isle/internal/netspec"
	"isle/internal/network"
)

func readText(text string) (network.Result, bool, error) {
	res, err := create.CreateFromBytes([]byte(text))
	if err != nil {
		return network.Result{}, false, err
	}
	return read(res, "eth0")
}

// TestResults : what results of all versions say.
func TestResults(t *testing.T) {
	t.Parallel()
	addr := func(s ...string) (out []netip.Prefix) {
		for _, a := range s {
			out = append(out, netip.MustParsePrefix(a))
		}
		return out
	}
	gw := []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	mac := netspec.MAC{2, 0, 0, 0, 0, 7}
	for text, want := range map[string]network.Result{
		`{"cniVersion":"0.1.0","ip4":{"ip":"10.9.0.7/24","gateway":"10.9.0.1","routes":[{"dst":"0.0.0.0/0"}]},"ip6":{"ip":"fd00::7/64"}}`: {Addrs: addr("10.9.0.7/24", "fd00::7/64"), Gateways: gw},
		`{"cniVersion":"0.2.0","ip4":{"ip":"10.9.0.7/24","gateway":"10.9.0.1"},"dns":{"nameservers":["10.9.0.3"],"domain":"lan","search":["corp"]}}`: {Addrs: addr("10.9.0.7/24"),
			DNS: network.ResultDNS{Servers: []netip.Addr{netip.MustParseAddr("10.9.0.3")}, Search: []string{"lan", "corp"}}},
		`{"cniVersion":"0.4.0","interfaces":[{"name":"v1"},{"name":"eth0","sandbox":"/x","mac":"02:00:00:00:00:07"},{"name":"eth1","sandbox":"/x"}],` +
			`"ips":[{"version":"4","interface":1,"address":"10.9.0.7/24"},{"version":"4","interface":2,"address":"10.8.0.7/24"},{"version":"4","interface":0,"address":"10.7.0.7/24"}],"routes":[{"dst":"10.0.0.0/8","gw":"10.9.0.1"}]}`: {Addrs: addr("10.9.0.7/24"), MAC: mac, Links: []string{"v1"},
			Routes: []network.ResultRoute{{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: gw[0]}}},
		`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x","mac":"02:00:00:00:00:07","mtu":1400}],"ips":[{"address":"10.9.0.7/24","gateway":"10.9.0.1"},{"address":"10.9.0.7/24"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"0.0.0.0/0","gw":"10.9.0.2"}]}`: {Addrs: addr("10.9.0.7/24"), MAC: mac, MTU: 1400, Gateways: gw},
		`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x","mac":"00:00:00:00:00:00:00:00"}]}`:                                                                                                                                                          {},
		`{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"/x"}],"ips":[{"interface":0,"address":"127.0.0.1/8"}]}`:                                                                                                                                            {},
		`{"cniVersion":"1.0.0"}`: {},
	} {
		got, _, err := readText(text)
		if err != nil || got.Routed || len(got.Raw) == 0 || !slices.Equal(got.Addrs, want.Addrs) || !slices.Equal(got.Gateways, want.Gateways) || !slices.Equal(got.Routes, want.Routes) ||
			!slices.Equal(got.Links, want.Links) || got.MAC != want.MAC || got.MTU != want.MTU || !slices.Equal(got.DNS.Servers, want.DNS.Servers) || !slices.Equal(got.DNS.Search, want.DNS.Search) {
			t.Errorf("%s:\n%+v %v", text, got, err)
		}
	}
}

// TestHostileResults : what cannot be, and would be believed further on.
func TestHostileResults(t *testing.T) {
	t.Parallel()
	many := func(n int, item string) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	for text, want := range map[string]string{
		`"ips":[{"interface":3,"address":"10.9.0.7/24"}]`:  "address 10.9.0.7/24 is of interface 3, and there are 0",
		`"ips":[{"interface":-1,"address":"10.9.0.7/24"}]`: "is of interface -1",
		`"ips":[{"address":"0.0.0.0/24"}]`:                 "cannot be a container's",
		`"ips":[{"address":"10.9.0.7/0"}]`:                 "cannot be a container's",
		`"ips":[{"address":"224.0.0.5/24"}]`:               "cannot be a container's",
		`"ips":[{"address":"255.255.255.255/32"}]`:         "cannot be a container's",
		`"ips":[null]`:        "address 0 is null",
		`"ips":[{}]`:          "cannot be a container's",
		`"interfaces":[null]`: "interface 0 is null",
		`"interfaces":[{"name":"../../x","sandbox":"/x"}]`:         "invalid interface name",
		`"interfaces":[{"name":"a b"}]`:                            "invalid interface name",
		`"interfaces":[{"name":"sixteenbytesname"}]`:               "invalid interface name",
		`"interfaces":[{"name":""}]`:                               "invalid interface name",
		`"interfaces":[{"name":"eth0","sandbox":"/x","mac":"zz"}]`: `MAC address "zz" cannot be`,
		`"interfaces":[{"name":"eth0","sandbox":"/x","mtu":-1}]`:   "MTU -1 cannot be",
		`"routes":[null]`: "route 0 is null",
		`"routes":[{"dst":"0.0.0.0/0","gw":"0.0.0.0"}]`:                            `gateway "0.0.0.0" cannot be`,
		`"routes":[{"dst":"0.0.0.0/0","gw":"127.0.0.1"}]`:                          `gateway "127.0.0.1" cannot be`,
		`"dns":{"nameservers":["x\nnameserver 6.6.6.6"]}`:                          "name server",
		`"dns":{"search":["a\nnameserver 6.6.6.6"]}`:                               "cannot be in resolv.conf",
		`"dns":{"options":["a b"]}`:                                                "cannot be in resolv.conf",
		`"dns":{"domain":"a\u0000"}`:                                               "cannot be in resolv.conf",
		`"interfaces":[` + many(65, `{"name":"a"}`) + `]`:                          "65 interfaces are too many: 64 are the most",
		`"ips":[` + many(65, `{"address":"10.9.0.7/24"}`) + `]`:                    "65 addresses are too many",
		`"routes":[` + many(257, `{"dst":"10.0.0.0/8"}`) + `]`:                     "257 routes are too many",
		`"dns":{"nameservers":[` + many(17, `"10.0.0.1"`) + `]}`:                   "17 name servers are too many",
		`"dns":{"search":[` + many(65, `"a"`) + `]}`:                               "65 search domains are too many",
		`"interfaces":[{"name":"a","pciID":"` + strings.Repeat("x", 1<<17) + `"}]`: "bytes are too many",
	} {
		if _, _, err := readText(`{"cniVersion":"1.1.0",` + text + `}`); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
	if _, _, err := read(nil, "eth0"); err == nil {
		t.Error("no result is one")
	}
}

// FuzzResult : whatever a plugin prints, what is taken of it is sound.
func FuzzResult(f *testing.F) {
	f.Add(`{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.9.0.7/24","gateway":"10.9.0.1"}],"routes":[{"dst":"::/0"}],"dns":{"nameservers":["::1"]}}`)
	f.Add(`{"cniVersion":"0.2.0","ip4":{"ip":"10.9.0.7/24"},"ip6":null}`)
	f.Add(`{"cniVersion":"0.4.0","ips":[{"version":"6","address":"::ffff:10.0.0.1/100"}],"routes":[{"dst":"10.0.0.0/8"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		res, _, err := readText(text)
		if err != nil {
			return
		}
		for _, a := range res.Addrs {
			if !a.IsValid() || a.Bits() == 0 || a.Addr().Is4In6() || a.Addr().Zone() != "" {
				t.Errorf("address %s", a)
			}
		}
		for _, l := range res.Links {
			if l != "lo" && network.CheckInterface(l) != nil {
				t.Errorf("link %q", l)
			}
		}
		for _, w := range slices.Concat(res.DNS.Search, res.DNS.Options) {
			if strings.ContainsAny(w, " \n\t\x00") {
				t.Errorf("word %q", w)
			}
		}
		if len(res.Gateways) > 2 {
			t.Errorf("gateways %v", res.Gateways)
		}
		_ = fmt.Sprint(res)
	})
}
