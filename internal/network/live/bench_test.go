package live_test

import (
	"fmt"
	"net/netip"
	"testing"

	api "github.com/moby/moby/api/types/network"
)

// BenchmarkAttach is a container's network with a published port, made and
// taken away, among others.
func BenchmarkAttach(b *testing.B) {
	for _, n := range []int{0, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b, true)
			m := h.start()
			defer stop(m)
			ports := api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified()}}}
			for i := range n {
				h.open(m, fmt.Sprint("c", i), ports, "bridge")
			}
			for b.Loop() {
				h.open(m, "x", ports, "bridge")
				b.StopTimer()
				if err := m.Close(b.Context(), "x"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
