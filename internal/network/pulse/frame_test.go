package pulse

import (
	"bytes"
	"testing"
)

// sent is a frame as it is on the wire: whoever sends it has finished the checksum.
func (m message) sent(from, to end, size int) []byte {
	b := m.encode(from, to, size)
	be.PutUint16(b[sumStart+sumOffset:], ^sum(0, b[sumStart:]))
	return b
}

// TestFrame: what is written is read, whatever the size; and one bit that is other than it
// was sent shows.
func TestFrame(t *testing.T) {
	x, y := endOf("x"), endOf("y")
	for _, m := range []message{{kind: ask, nonce: 1 << 63}, {kind: answer, nonce: 7, spoilt: true, fit: 1400}} {
		for _, size := range []int{0, small, small + 1, 1450, 9000, 1 << 20} {
			b := m.sent(x, y, size)
			if want := min(max(size, small), largest) + ethernetLen; len(b) != want {
				t.Errorf("a frame of size %d has %d bytes, want %d", size, len(b), want)
			}
			e, ok := open(b)
			got, known, intact := read(b, true)
			if !ok || !known || !intact || got != m || e.from != x || e.to != y {
				t.Errorf("%+v of size %d is read as %+v of %+v: %t %t %t", m, size, got, e, ok, known, intact)
			}
			for i := sumStart; i < len(b); i += max(1, len(b)/50) {
				spoilt := bytes.Clone(b)
				spoilt[i] ^= 4
				if _, ok := open(spoilt); ok {
					if _, _, intact := read(spoilt, true); intact {
						t.Errorf("size %d: byte %d is changed, and it does not show", size, i)
					}
				}
			}
		}
	}
}

// FuzzFrame: nothing that comes in is trusted before it was looked at, and what is read is
// what was written.
func FuzzFrame(f *testing.F) {
	x, y := endOf("x"), endOf("y")
	f.Add([]byte(nil))
	f.Add(message{kind: ask, nonce: 5}.sent(x, y, small))
	f.Add(message{kind: answer, fit: 1400, spoilt: true}.sent(x, y, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := open(b)
		if !ok {
			return
		}
		for _, summed := range []bool{false, true} {
			m, known, intact := read(b, summed)
			if !known || !intact {
				continue
			}
			again := m.sent(e.from, e.to, len(b)-ethernetLen)
			if got, _, _ := read(again, true); got != m || len(again) != len(b) {
				t.Errorf("%x is read as %+v, and written as %x", b, m, again)
			}
		}
	})
}
