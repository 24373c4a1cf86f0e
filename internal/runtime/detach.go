package runtime

import "bytes"

// detacher looks for a sequence of keys in what a person types. Keys that may
// begin it are held back, and go on when it turns out that they do not.
type detacher struct {
	keys []byte
	held int // how many of keys have been typed
}

// filter returns what to send on, and whether the sequence is complete: then
// what follows it is dropped.
func (d *detacher) filter(p []byte) (out []byte, detached bool) {
	if len(d.keys) == 0 {
		return p, false
	}
	for _, b := range p {
		if b == d.keys[d.held] {
			if d.held++; d.held == len(d.keys) {
				d.held = 0
				return out, true
			}
			continue
		}
		out = d.broken(out, b)
	}
	return out, false
}

// broken sends on what was held back and cannot begin the sequence any more,
// now that b has come.
func (d *detacher) broken(out []byte, b byte) []byte {
	typed := append(bytes.Clone(d.keys[:d.held]), b)
	for len(typed) > 0 && !bytes.HasPrefix(d.keys, typed) {
		out = append(out, typed[0])
		typed = typed[1:]
	}
	d.held = len(typed)
	return out
}

// rest returns what is held back: nothing more comes.
func (d *detacher) rest() []byte {
	held := d.keys[:d.held]
	d.held = 0
	return held
}
