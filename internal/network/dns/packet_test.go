package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// Malformed are packets that have led resolvers astray.
func Malformed() [][]byte {
	ok, _ := new(dns.Msg).SetQuestion("web.", dns.TypeA).Pack()
	header := func(qd, an uint16) []byte {
		b := make([]byte, 12)
		binary.BigEndian.PutUint16(b[4:], qd)
		binary.BigEndian.PutUint16(b[6:], an)
		return b
	}
	answer := slices.Clone(ok)
	answer[2] |= 0x80
	return [][]byte{
		{}, {0}, ok[:11], ok[:14], header(0, 0), header(1, 0), header(65535, 65535), answer,
		append(header(1, 0), 0xc0, 12, 0, 1, 0, 1),        // a name that points to itself
		append(header(1, 0), 0xc0, 14, 0xc0, 12, 0, 1, 0), // two that point to each other
		append(header(1, 0), 63, 'a'),                     // a label that is not there
		append(header(2, 0), ok[12:]...),
		append(slices.Clone(ok), 1, 2, 3),
	}
}

// FuzzPacket: whatever comes in, the answer is one to the question, fits, and
// would not be answered itself (CVE-2026-35406).
func FuzzPacket(f *testing.F) {
	for _, p := range Malformed() {
		f.Add(p)
	}
	r := newRecords().withZone("n1", Zone{Name: "app"}).withHost(Host{
		Zone: "n1", Owner: "e1", Names: []string{"web"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
	})
	c := Client{Zones: []string{"n1"}, Forward: true}
	f.Fuzz(func(t *testing.T, p []byte) {
		q := parse(p)
		if q == nil {
			return
		}
		resp, forward := r.reply(c, q)
		if forward && resp == nil {
			t.Fatal("forwarded without a reply to fall back to")
		}
		if resp == nil {
			return
		}
		resp.Truncate(size(q))
		b, err := resp.Pack()
		if err != nil {
			t.Fatalf("cannot be packed: %v\n%v", err, resp)
		}
		if len(b) > size(q) || resp.Id != q.Id || !resp.Response {
			t.Fatalf("%d bytes of %d: %v", len(b), size(q), resp)
		}
		if parse(b) != nil {
			t.Fatalf("an answer would be answered: %v", resp)
		}
	})
}
