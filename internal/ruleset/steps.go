package ruleset

import (
	"bytes"
	"slices"
)

// Step is one expression of a rule.
type Step interface {
	do(r *run) (match, Verdict)
}

// Reg is a register as nftables numbers them: 1 to 4 of 16 bytes, 8 to 23 of four.
type Reg uint32

func (g Reg) offset() int {
	if g >= 8 {
		return min(int(g-8)*4, 60)
	}
	return min((max(int(g), 1)-1)*16, 48)
}

func (r *run) set(g Reg, b []byte, known bool) {
	at := g.offset()
	n := copy(r.regs[at:], b)
	for i := at / 4; i <= (at+max(n, 1)-1)/4; i++ {
		r.unknown[i] = !known
	}
	for ; n%4 != 0 && at+n < len(r.regs); n++ {
		r.regs[at+n] = 0
	}
}

func (r *run) get(g Reg, n int) (b []byte, known bool) {
	at := g.offset()
	n = min(n, len(r.regs)-at)
	known = !slices.Contains(r.unknown[at/4:(at+max(n, 1)-1)/4+1], true)
	return r.regs[at : at+n], known
}

// Load puts a field of the packet into a register.
type Load struct {
	Field Field
	Dst   Reg
}

func (s Load) do(r *run) (match, Verdict) {
	b, state := s.Field.of(r)
	if state == absent {
		return no, Verdict{}
	}
	r.set(s.Dst, b, state == present)
	return yes, Verdict{}
}

// Put puts bytes into a register.
type Put struct {
	Data []byte
	Dst  Reg
}

func (s Put) do(r *run) (match, Verdict) { r.set(s.Dst, s.Data, true); return yes, Verdict{} }

// Comparisons.
const (
	Eq = iota
	Neq
	Lt
	Lte
	Gt
	Gte
)

// Compare compares a register with a value.
type Compare struct {
	Src  Reg
	Op   int
	Data []byte
}

func (s Compare) do(r *run) (match, Verdict) {
	b, known := r.get(s.Src, len(s.Data))
	if !known {
		return perhaps, Verdict{}
	}
	c := bytes.Compare(b, s.Data)
	return is([]bool{c == 0, c != 0, c < 0, c <= 0, c > 0, c >= 0}[s.Op]), Verdict{}
}

func is(b bool) match {
	if b {
		return yes
	}
	return no
}

// Between compares a register with two values.
type Between struct {
	Src         Reg
	Not         bool
	First, Last []byte
}

func (s Between) do(r *run) (match, Verdict) {
	b, known := r.get(s.Src, len(s.First))
	if !known {
		return perhaps, Verdict{}
	}
	return is(s.Not != (bytes.Compare(b, s.First) >= 0 && bytes.Compare(b, s.Last) <= 0)), Verdict{}
}

// Mask is Dst = Src & And ^ Xor.
type Mask struct {
	Src, Dst Reg
	And, Xor []byte
}

func (s Mask) do(r *run) (match, Verdict) {
	b, known := r.get(s.Src, len(s.And))
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] & s.And[i]
		if i < len(s.Xor) {
			out[i] ^= s.Xor[i]
		}
	}
	r.set(s.Dst, out, known)
	return yes, Verdict{}
}

// Swap turns the bytes around, Size at a time.
type Swap struct {
	Src, Dst  Reg
	Len, Size int
}

func (s Swap) do(r *run) (match, Verdict) {
	b, known := r.get(s.Src, s.Len)
	out := slices.Clone(b)
	for at := 0; s.Size > 0 && at+s.Size <= len(out); at += s.Size {
		slices.Reverse(out[at : at+s.Size])
	}
	r.set(s.Dst, out, known)
	return yes, Verdict{}
}

// Lookup looks for a register in a set; with a map it takes the verdict, or the
// data into Dst.
type Lookup struct {
	Src, Dst Reg // Dst 0: a verdict, or nothing
	Set      string
	Not      bool
}

func (s Lookup) do(r *run) (match, Verdict) {
	set := r.rules.Sets[SetID{r.family, r.table, s.Set}]
	for _, e := range set.Elements {
		b, known := r.get(s.Src, len(e.Key))
		if !known {
			return perhaps, Verdict{}
		}
		if !within(b, e, set.Fields) {
			continue
		}
		if e.Data != nil && s.Dst != 0 {
			r.set(s.Dst, e.Data, true)
		}
		if e.Verdict != nil {
			return yes, *e.Verdict
		}
		return is(!s.Not), Verdict{}
	}
	return is(s.Not), Verdict{}
}

// within compares as the kernel does: of a concatenation every field by itself.
func within(b []byte, e Element, fields []int) bool {
	if len(e.Last) != len(b) {
		return bytes.Equal(b, e.Key)
	}
	if len(fields) < 2 {
		fields = []int{len(b)}
	}
	at := 0
	for _, n := range fields {
		end := min(at+(n+3)&^3, len(b), len(e.Last))
		if bytes.Compare(b[at:end], e.Key[at:end]) < 0 || bytes.Compare(b[at:end], e.Last[at:end]) > 0 {
			return false
		}
		at = end
	}
	return true
}

// End is a verdict.
type End struct{ Verdict }

func (s End) do(*run) (match, Verdict) { return yes, s.Verdict }

// Aside is what changes nothing for our question: a counter, a log.
type Aside struct{}

func (Aside) do(*run) (match, Verdict) { return yes, Verdict{} }

// Never is a condition that an ordinary packet does not fulfil: one over a limit.
type Never struct{}

func (Never) do(*run) (match, Verdict) { return no, Verdict{} }

// Perhaps is a condition that is not understood.
type Perhaps struct{}

func (Perhaps) do(*run) (match, Verdict) { return perhaps, Verdict{} }

// States is the condition on the state of the connection that iptables has.
type States struct {
	Mask uint16 // of iptables: 1 invalid, 2 established, 4 related, 8 new, 1<<7 dnat
	Not  bool
}

// States of iptables.
const (
	StateNew  = 1 << 3
	StateDNAT = 1 << 7
)

func (s States) do(r *run) (match, Verdict) {
	state := uint16(StateNew)
	if r.packet.DNAT.IsValid() {
		state |= StateDNAT
	}
	return is((s.Mask&state != 0) != s.Not), Verdict{}
}

// Ports is the condition on ports that iptables has.
type Ports struct {
	Source, Dest [][2]uint16 // rows; nil: every port
	Either       bool        // one of Source and Dest is enough
	NotSource    bool
	NotDest      bool
}

func (s Ports) do(r *run) (match, Verdict) {
	in := func(rows [][2]uint16, port uint16) bool {
		return rows == nil || slices.ContainsFunc(rows, func(w [2]uint16) bool { return w[0] <= port && port <= w[1] })
	}
	src, dst := in(s.Source, r.packet.SrcPort) != s.NotSource, in(s.Dest, r.packet.DstPort) != s.NotDest
	if s.Either {
		return is(src || dst), Verdict{}
	}
	return is(src && dst), Verdict{}
}

// AddrTypes is the condition on the kinds of addresses that iptables has: bits by
// the number of the kind in rtnetlink.h.
type AddrTypes struct {
	Source, Dest       uint16 // 0: every kind
	NotSource, NotDest bool
}

const unicast, local = 1 << 1, 1 << 2

func (s AddrTypes) do(r *run) (match, Verdict) {
	kind := uint16(unicast)
	if r.packet.Local {
		kind = local
	}
	src := s.Source == 0 || (s.Source&unicast != 0) != s.NotSource
	dst := s.Dest == 0 || (s.Dest&kind != 0) != s.NotDest
	return is(src && dst), Verdict{}
}
