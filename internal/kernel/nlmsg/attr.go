package nlmsg

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Attrs builds a list of attributes, and the fixed header before them.
type Attrs struct{ b []byte }

// Header begins a message with its fixed part.
func Header(b ...byte) *Attrs { return &Attrs{append(make([]byte, 0, 256), b...)} }

// Data is what was built.
func (a *Attrs) Data() []byte { return a.b }

// Put adds one attribute, padded.
func (a *Attrs) Put(typ uint16, data []byte) *Attrs {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(4+len(data)))
	a.b = binary.NativeEndian.AppendUint16(a.b, typ)
	a.b = append(a.b, data...)
	return a.pad()
}

func (a *Attrs) pad() *Attrs {
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
	return a
}

// U8 adds a byte.
func (a *Attrs) U8(typ uint16, v uint8) *Attrs { return a.Put(typ, []byte{v}) }

// U32 adds a number in the machine's order, as rtnetlink wants it.
func (a *Attrs) U32(typ uint16, v uint32) *Attrs {
	return a.Put(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// B32 adds a number in network order, as nftables wants it.
func (a *Attrs) B32(typ uint16, v uint32) *Attrs {
	return a.Put(typ, binary.BigEndian.AppendUint32(nil, v))
}

// Str adds a string with its terminating zero.
func (a *Attrs) Str(typ uint16, s string) *Attrs { return a.Put(typ, append([]byte(s), 0)) }

// Nest adds an attribute that holds what fn adds.
func (a *Attrs) Nest(typ uint16, fn func(*Attrs)) *Attrs {
	at := len(a.b)
	a.b = binary.NativeEndian.AppendUint16(a.b, 0)
	a.b = binary.NativeEndian.AppendUint16(a.b, typ|unix.NLA_F_NESTED)
	fn(a)
	binary.NativeEndian.PutUint16(a.b[at:], uint16(len(a.b)-at))
	return a
}

// Raw adds bytes as they are: the fixed part of a message within an attribute.
func (a *Attrs) Raw(b []byte) *Attrs {
	a.b = append(a.b, b...)
	return a.pad()
}

// Each walks attributes; it stops at one that is malformed. Flags are taken
// off the types.
func Each(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// Find is the first attribute of a type, nil when there is none. Types lead to
// nested attributes.
func Find(b []byte, path ...uint16) []byte {
	for _, want := range path {
		var found []byte
		for typ, data := range Each(b) {
			if typ == want {
				found = data
				break
			}
		}
		if found == nil {
			return nil
		}
		b = found
	}
	return b
}

// U32 reads a number in the machine's order; 0 when b is too short.
func U32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// B32 reads a number in network order; 0 when b is too short.
func B32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Str reads a string with or without its terminating zero.
func Str(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
