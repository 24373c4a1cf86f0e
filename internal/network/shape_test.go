package network_test

import (
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
)

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		rate  uint64
		burst uint32
	}{
		"8k": {1000, 65536}, "10M": {1_250_000, 65536}, "1G": {125_000_000, 1_250_000}, "100G": {12_500_000_000, 125_000_000},
		"80000": {10_000, 65536}, "10M/1M": {1_250_000, 125_000}, "1G/16k": {125_000_000, 2000},
	} {
		if rate, burst, err := network.ParseRate(text); err != nil || rate != want.rate || burst != want.burst {
			t.Errorf("%s: %d %d %v", text, rate, burst, err)
		}
	}
	for _, text := range []string{"", "x", "7", "-1M", "101G", "10M/", "10M/1k", "10M/17G", "1T", "10m", "99999999999999999999", "18446744073709551615k", "1M/2M/3M"} {
		if _, _, err := network.ParseRate(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestShaped: both ends of a link are held back, and nothing stays of it.
func TestShaped(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	app := createNet(t, m, "app", "10.1.0.0/24")
	req := request("c1", nil)
	req.Networks = []network.ConnectRequest{{Network: app.ID, ContainerName: "c1", ContainerID: "c1", Settings: api.EndpointSettings{
		DriverOpts: map[string]string{network.OptIngress: "10M", network.OptEgress: "20M/1M"},
	}}}
	out, err := m.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	want := []netspec.Shape{{Link: out.Endpoints[0].HostInterface, Rate: 1_250_000, Burst: 65536}, {NS: "c1", Link: "eth0", Rate: 2_500_000, Burst: 125_000}}
	for _, o := range want {
		if got := w.kernel.State[o.Key()]; got != o {
			t.Errorf("%+v, want %+v", got, o)
		}
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	for _, o := range want {
		if _, ok := w.kernel.State[o.Key()]; ok {
			t.Errorf("left: %+v", o)
		}
	}
	req.Networks[0].Settings.DriverOpts[network.OptEgress] = "much"
	if _, err := m.Open(t.Context(), req); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}
