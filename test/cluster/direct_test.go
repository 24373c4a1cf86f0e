package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"isle/api"
)

// direct: between hosts of one segment what containers send is on the wire as it is,
// between the others in tunnels; and in tunnels everywhere while the switch drops what it
// has not given an address. Flows go on.
func direct(s *site) {
	h1, h2, h3 := s.all[0], s.all[1], s.all[2]
	h1.Isle(s.t, "network", "create", "-d", "overlay", "-o", "isle.direct=true", "--subnet", "10.71.0.0/24", "fast")
	var boxes []box
	for i, h := range []*host{h1, h2, h3} {
		h.eventually("it has the network", func() bool { _, err := h.Try("network", "inspect", "fast"); return err == nil })
		name := fmt.Sprint("d", i+1)
		h.Isle(s.t, "run", "-d", "--name", name, "--network", "fast", "isle/toolbox", "sleep", "100000")
		boxes = append(boxes, s.box(i+1, name))
	}
	h1.eventually("its neighbour is reached directly, who is elsewhere is not", func() bool { return h1.way(h2.name) == "direct" && h1.way(h3.name) == "tunnel" })
	h2.eventually("its neighbour is reached directly, who is elsewhere is not", func() bool { return h2.way(h1.name) == "direct" && h2.way(h3.name) == "tunnel" })
	near := s.witness(h1.name, boxes[0], boxes[1])
	far := s.witness(h3.name, boxes[0], boxes[2])
	f12, f13 := connect(s.t, boxes[0], boxes[1], boxes[1].on("fast")), connect(s.t, boxes[0], boxes[2], boxes[2].on("fast"))
	s.must(f12.pass())
	s.must(f13.pass())
	if plain, wrapped := near.seen(); plain < 4 || wrapped > 0 {
		s.t.Errorf("on one segment %d packets were as they are, %d in a tunnel", plain, wrapped)
	}
	if plain, wrapped := far.seen(); plain > 0 || wrapped < 4 {
		s.t.Errorf("across the router %d packets were as they are, %d in a tunnel", plain, wrapped)
	}
	goesOn(s.t, f12, "the switch drops what it does not know", func() {
		s.do(`ip netns exec $S-switch nft add table bridge owner
			ip netns exec $S-switch nft 'add chain bridge owner in { type filter hook prerouting priority 0; }'
			ip netns exec $S-switch nft 'add rule bridge owner in ip saddr 10.71.0.0/24 drop'`)
		h1.eventually("it goes by the tunnel", func() bool { return h1.way(h2.name) == "tunnel" })
		h2.eventually("it goes by the tunnel", func() bool { return h2.way(h1.name) == "tunnel" })
		near.seen()
		s.must(connect(s.t, boxes[1], boxes[0], boxes[0].on("fast")).pass())
		if plain, wrapped := near.seen(); plain > 0 || wrapped < 4 {
			s.t.Errorf("while they are dropped %d packets were as they are, %d in a tunnel", plain, wrapped)
		}
		s.do("ip netns exec $S-switch nft delete table bridge owner")
		h1.eventually("it goes directly again", func() bool { return h1.way(h2.name) == "direct" })
	})
	for _, b := range boxes {
		b.Isle(s.t, "rm", "-f", b.name)
	}
	h1.eventually("the network can go", func() bool { _, err := h1.Try("network", "rm", "fast"); return err == nil })
	s.model(s.all[2], s.all...)
}

// way is how the host reaches another one on network fast.
func (h *host) way(to string) string {
	out, err := h.Try("network", "inspect", "--verbose", "fast")
	var all []struct{ Cluster api.NetworkSpan }
	if err != nil || json.Unmarshal([]byte(out), &all) != nil || len(all) != 1 {
		return ""
	}
	for _, o := range all[0].Cluster.Hosts {
		if o.Name == to {
			return o.Way
		}
	}
	return ""
}

// witness counts what passes a port of the switch between two containers.
type witness struct {
	between        [2][]byte // the addresses as they stand in a packet, either way
	plain, wrapped atomic.Int64
}

func (s *site) witness(port string, a, b box) *witness {
	s.t.Helper()
	x, y := netip.MustParseAddr(a.on("fast")).AsSlice(), netip.MustParseAddr(b.on("fast")).AsSlice()
	w := &witness{between: [2][]byte{append(bytes.Clone(x), y...), append(bytes.Clone(y), x...)}}
	var fd *os.File
	s.must(within("/run/netns/"+s.name+"-switch", func() (err error) { fd, err = tap(port, true); return err }))
	s.t.Cleanup(func() { fd.Close() })
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, err := fd.Read(b)
			if err != nil {
				return
			}
			w.hear(b[:n])
		}
	}()
	return w
}

// addrsAt is where a frame has the addresses of IPv4, dportAt where it has UDP's port.
const addrsAt, dportAt, vxlan = 14 + 12, 14 + 20 + 2, 4789

func (w *witness) hear(frame []byte) {
	for _, pair := range w.between {
		switch i := bytes.Index(frame, pair); {
		case i == addrsAt:
			w.plain.Add(1)
		case i > addrsAt && binary.BigEndian.Uint16(frame[dportAt:]) == vxlan:
			w.wrapped.Add(1)
		}
	}
}

// seen is what was counted since it was asked last.
func (w *witness) seen() (plain, wrapped int64) {
	time.Sleep(50 * time.Millisecond) // what is underway to the witness
	return w.plain.Swap(0), w.wrapped.Swap(0)
}
