package network_test

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"testing/synctest"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
)

// needy gives addresses for MAC addresses only, and forgets them with a start.
type needy struct {
	addresser
	macs []netspec.MAC
}

var _ network.NeedyIPAM = &needy{}

func (n *needy) Needs(context.Context) (network.IPAMNeeds, error) {
	return network.IPAMNeeds{MAC: true, Replay: true}, nil
}

func (n *needy) RequestAddress(ctx context.Context, id string, want netip.Addr, gateway bool, mac netspec.MAC) (netip.Prefix, error) {
	n.macs = append(n.macs, mac)
	return n.addresser.RequestAddress(ctx, id, want, gateway, mac)
}

// TestNeedyIPAM: an IPAM plug-in is told of MAC addresses when it wants that, also of
// interfaces that others make, and asked again for all after a start.
func TestNeedyIPAM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ipam := &needy{addresser: addresser{w.outside}}
		start := func() *network.Manager {
			m := w.start(t)
			m.OutsideIPAM = func(string) (network.ExternalIPAM, bool) { return ipam, true }
			return m
		}
		m := start()
		create(t, m, api.CreateRequest{Name: "far", Driver: "half", IPAM: &api.IPAM{Driver: "lender", Config: []api.IPAMConfig{{
			Subnet: netip.MustParsePrefix("10.77.0.0/24"), AuxAddress: map[string]netip.Addr{"printer": addr("10.77.0.9")},
		}}}})
		ep := open(t, m, "c1", "far").Endpoints[0]
		told := w.outside.seats[ep.ID].Endpoint.MAC
		if told == (netspec.MAC{}) || ipam.macs[len(ipam.macs)-1] != told {
			t.Errorf("the interface was made with %v, an address given to %v", told, ipam.macs)
		}
		lent, pools := maps.Clone(w.outside.lent), maps.Clone(w.outside.pools)
		clear(w.outside.lent)
		clear(w.outside.pools)
		m = start()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		synctest.Wait()
		if !maps.Equal(w.outside.lent, lent) || !maps.Equal(w.outside.pools, pools) {
			t.Errorf("it has %v of %v, and had %v of %v", w.outside.lent, w.outside.pools, lent, pools)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
