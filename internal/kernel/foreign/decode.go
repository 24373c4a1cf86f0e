package foreign

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/ruleset"
)

// decoder turns one rule's expressions into steps, and into text on the way.
type decoder struct {
	*reader
	table  tableID
	named  map[ruleset.SetID]bool
	loaded map[ruleset.Reg]string // what is in the registers, in words
	shift  map[ruleset.Reg]string // what it was masked with
	words  []string
}

func (d *decoder) rule(b []byte) (ruleset.Rule, error) {
	r := ruleset.Rule{}
	if h := nlmsg.Find(b, unix.NFTA_RULE_HANDLE); len(h) == 8 {
		r.Handle = binary.BigEndian.Uint64(h)
	}
	d.shift = map[ruleset.Reg]string{}
	for _, e := range nlmsg.Each(nlmsg.Find(b, unix.NFTA_RULE_EXPRESSIONS)) {
		s, err := d.step(nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME)), nlmsg.Find(e, unix.NFTA_EXPR_DATA))
		if err != nil {
			return r, err
		}
		r.Steps = append(r.Steps, s)
	}
	r.Text = shorter.Replace(strings.Join(d.words, " "))
	return r, nil
}

// shorter leaves out what nft does not print either: that there is a protocol where
// its port follows.
var shorter = strings.NewReplacer(
	"meta l4proto tcp dport", "tcp dport", "meta l4proto udp dport", "udp dport", "ip protocol tcp dport", "tcp dport", "ip protocol udp dport", "udp dport",
	"meta l4proto tcp tcp dport", "tcp dport", "meta l4proto udp udp dport", "udp dport", "meta nfproto ipv4 ip ", "ip ", "meta nfproto ipv6 ip6 ", "ip6 ",
)

func (d *decoder) say(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); s != "" {
		d.words = append(d.words, s)
	}
}

func reg(b []byte, attr uint16) ruleset.Reg { return ruleset.Reg(nlmsg.B32(nlmsg.Find(b, attr))) }

// step is one expression. Those that only look aside change nothing for a packet;
// those that nobody knows may be anything.
func (d *decoder) step(name string, b []byte) (ruleset.Step, error) {
	switch name {
	case "meta":
		return d.meta(b), nil
	case "payload":
		return d.payload(b), nil
	case "ct":
		return d.ct(b), nil
	case "fib":
		return d.fib(b), nil
	case "cmp":
		return d.compare(b), nil
	case "range":
		return d.between(b), nil
	case "bitwise":
		return d.mask(b), nil
	case "byteorder":
		return swap(b), nil
	case "lookup":
		return d.lookup(b)
	case "immediate":
		return d.immediate(b), nil
	case "reject":
		d.say("reject")
		return end(ruleset.Drop), nil
	case "masq", "nat", "redir", "tproxy":
		return d.nat(name, b), nil
	case "match":
		return d.match(b), nil
	case "target":
		return d.target(b), nil
	case "limit", "connlimit", "quota":
		return d.limit(name, b), nil
	case "counter", "log", "notrack", "objref", "last", "dup", "flow_offload", "ct_helper":
		return ruleset.Aside{}, nil
	case "dynset":
		d.say("(set update)")
		return ruleset.Aside{}, nil
	}
	return d.load(b, 1, name, ruleset.Field{}), nil
}

func end(c ruleset.Code) ruleset.Step { return ruleset.End{Verdict: ruleset.Verdict{Code: c}} }

// load notes what a register holds. Without a register an expression is a
// condition of its own.
func (d *decoder) load(b []byte, attr uint16, words string, f ruleset.Field) ruleset.Step {
	dst := reg(b, attr)
	if dst == 0 || dst > unix.NFT_REG32_15 {
		d.say("(%s)", words)
		return ruleset.Perhaps{}
	}
	d.loaded[dst] = words
	delete(d.shift, dst)
	return ruleset.Load{Field: f, Dst: dst}
}

var metas = map[uint32]struct {
	words string
	part  ruleset.Part
}{
	unix.NFT_META_PROTOCOL: {"meta protocol", ruleset.EtherType}, unix.NFT_META_MARK: {"meta mark", ruleset.PacketMark},
	unix.NFT_META_IIF: {"iif", ruleset.InIndex}, unix.NFT_META_OIF: {"oif", ruleset.OutIndex},
	unix.NFT_META_IIFNAME: {"iifname", ruleset.InName}, unix.NFT_META_OIFNAME: {"oifname", ruleset.OutName},
	unix.NFT_META_NFPROTO: {"meta nfproto", ruleset.NFProto}, unix.NFT_META_L4PROTO: {"meta l4proto", ruleset.L4Proto},
	unix.NFT_META_PKTTYPE: {"meta pkttype", ruleset.PacketType},
}

func (d *decoder) meta(b []byte) ruleset.Step {
	if nlmsg.Find(b, unix.NFTA_META_SREG) != nil {
		d.say("(set meta)")
		return ruleset.Aside{}
	}
	key := nlmsg.B32(nlmsg.Find(b, unix.NFTA_META_KEY))
	m, ok := metas[key]
	if !ok {
		m.words = fmt.Sprintf("meta key %d", key)
	}
	return d.load(b, unix.NFTA_META_DREG, m.words, ruleset.Field{Of: m.part})
}

func (d *decoder) payload(b []byte) ruleset.Step {
	if nlmsg.Find(b, unix.NFTA_PAYLOAD_SREG) != nil {
		d.say("(write header)")
		return ruleset.Aside{}
	}
	num := func(attr uint16) int { return int(nlmsg.B32(nlmsg.Find(b, attr))) }
	f := ruleset.Field{Offset: num(unix.NFTA_PAYLOAD_OFFSET), Len: num(unix.NFTA_PAYLOAD_LEN)}
	switch num(unix.NFTA_PAYLOAD_BASE) {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		f.Of = ruleset.NetworkHeader
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		f.Of = ruleset.TransportHeader
	}
	return d.load(b, unix.NFTA_PAYLOAD_DREG, fieldWords(f), f)
}

func fieldWords(f ruleset.Field) string {
	switch f {
	case ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}:
		return "ip saddr"
	case ruleset.Field{Of: ruleset.NetworkHeader, Offset: 16, Len: 4}:
		return "ip daddr"
	case ruleset.Field{Of: ruleset.NetworkHeader, Offset: 8, Len: 16}:
		return "ip6 saddr"
	case ruleset.Field{Of: ruleset.NetworkHeader, Offset: 24, Len: 16}:
		return "ip6 daddr"
	case ruleset.Field{Of: ruleset.NetworkHeader, Offset: 9, Len: 1}:
		return "ip protocol"
	case ruleset.Field{Of: ruleset.TransportHeader, Offset: 0, Len: 2}:
		return "sport"
	case ruleset.Field{Of: ruleset.TransportHeader, Offset: 2, Len: 2}:
		return "dport"
	}
	base := "link"
	switch f.Of {
	case ruleset.NetworkHeader:
		if f.Offset == 12 && f.Len < 4 {
			return "ip saddr"
		}
		if f.Offset == 16 && f.Len < 4 {
			return "ip daddr"
		}
		base = "nh"
	case ruleset.TransportHeader:
		base = "th"
	}
	return fmt.Sprintf("@%s,%d,%d", base, 8*f.Offset, 8*f.Len)
}

func (d *decoder) ct(b []byte) ruleset.Step {
	if nlmsg.Find(b, unix.NFTA_CT_SREG) != nil {
		d.say("(set ct)")
		return ruleset.Aside{}
	}
	words, part := "", ruleset.Unknown
	original := len(nlmsg.Find(b, unix.NFTA_CT_DIRECTION)) == 1 && nlmsg.Find(b, unix.NFTA_CT_DIRECTION)[0] == 0
	switch key := nlmsg.B32(nlmsg.Find(b, unix.NFTA_CT_KEY)); {
	case key == unix.NFT_CT_STATE:
		words, part = "ct state", ruleset.CTState
	case key == unix.NFT_CT_STATUS:
		words, part = "ct status", ruleset.CTStatus
	case key == unix.NFT_CT_DIRECTION:
		words, part = "ct direction", ruleset.CTDirection
	case key == unix.NFT_CT_MARK:
		words, part = "ct mark", ruleset.PacketMark
	case key == unix.NFT_CT_PROTO_DST && original:
		words, part = "ct original proto-dst", ruleset.CTOriginalPort
	case (key == unix.NFT_CT_DST || key == unix.NFT_CT_DST_IP || key == unix.NFT_CT_DST_IP6) && original:
		words, part = "ct original daddr", ruleset.CTOriginalDst
	default:
		words = fmt.Sprintf("ct key %d", key)
	}
	return d.load(b, unix.NFTA_CT_DREG, words, ruleset.Field{Of: part})
}

func (d *decoder) fib(b []byte) ruleset.Step {
	flags, result := nlmsg.B32(nlmsg.Find(b, unix.NFTA_FIB_FLAGS)), nlmsg.B32(nlmsg.Find(b, unix.NFTA_FIB_RESULT))
	words, part := "fib", ruleset.Unknown
	switch {
	case result == unix.NFT_FIB_RESULT_ADDRTYPE && flags&unix.NFTA_FIB_F_DADDR != 0:
		words, part = "fib daddr type", ruleset.DestType
	case result == unix.NFT_FIB_RESULT_ADDRTYPE:
		words, part = "fib saddr type", ruleset.SourceType
	case result == unix.NFT_FIB_RESULT_OIF && flags&unix.NFTA_FIB_F_SADDR != 0:
		words, part = "fib saddr oif", ruleset.RouteBack
	}
	return d.load(b, unix.NFTA_FIB_DREG, words, ruleset.Field{Of: part})
}

// register is what is compared, in words.
func (d *decoder) register(g ruleset.Reg) string {
	if s := d.shift[g]; s != "" {
		return d.loaded[g] + " & " + s
	}
	return d.loaded[g]
}

var comparisons = []string{"", " !=", " <", " <=", " >", " >="}

func (d *decoder) compare(b []byte) ruleset.Step {
	g, op := reg(b, unix.NFTA_CMP_SREG), int(nlmsg.B32(nlmsg.Find(b, unix.NFTA_CMP_OP)))
	data := nlmsg.Find(b, unix.NFTA_CMP_DATA, unix.NFTA_DATA_VALUE)
	if op >= len(comparisons) {
		return ruleset.Perhaps{}
	}
	d.sayCompare(g, op, data)
	return ruleset.Compare{Src: g, Op: op, Data: data}
}

// sayCompare says it as nft does: bits of a state by their names, and no
// comparison of the protocol where a port follows.
func (d *decoder) sayCompare(g ruleset.Reg, op int, data []byte) {
	what := d.loaded[g]
	if mask := d.shift[g]; mask != "" && op == ruleset.Neq && allZero(data) {
		d.say("%s %s", what, mask)
		return
	}
	if what == "ip saddr" || what == "ip daddr" {
		d.say("%s%s %s", what, comparisons[op], prefixWords(data, d.shift[g]))
		return
	}
	d.say("%s%s %s", d.register(g), comparisons[op], value(what, data))
}

func (d *decoder) between(b []byte) ruleset.Step {
	g := reg(b, unix.NFTA_RANGE_SREG)
	s := ruleset.Between{
		Src: g, Not: nlmsg.B32(nlmsg.Find(b, unix.NFTA_RANGE_OP)) == 1,
		First: nlmsg.Find(b, unix.NFTA_RANGE_FROM_DATA, unix.NFTA_DATA_VALUE), Last: nlmsg.Find(b, unix.NFTA_RANGE_TO_DATA, unix.NFTA_DATA_VALUE),
	}
	not := ""
	if s.Not {
		not = "!= "
	}
	d.say("%s %s%s-%s", d.register(g), not, value(d.loaded[g], s.First), value(d.loaded[g], s.Last))
	return s
}

// Attributes of a bitwise expression that x/sys/unix lacks: which operation.
const bitwiseOp = 6

func (d *decoder) mask(b []byte) ruleset.Step {
	src, dst := reg(b, unix.NFTA_BITWISE_SREG), reg(b, unix.NFTA_BITWISE_DREG)
	and, xor := nlmsg.Find(b, unix.NFTA_BITWISE_MASK, unix.NFTA_DATA_VALUE), nlmsg.Find(b, unix.NFTA_BITWISE_XOR, unix.NFTA_DATA_VALUE)
	if nlmsg.B32(nlmsg.Find(b, bitwiseOp)) != 0 || and == nil {
		return d.load(b, unix.NFTA_BITWISE_DREG, d.loaded[src]+" shifted", ruleset.Field{})
	}
	what := d.loaded[src]
	d.loaded[dst], d.shift[dst] = what, value(what, and)
	return ruleset.Mask{Src: src, Dst: dst, And: and, Xor: xor}
}

func swap(b []byte) ruleset.Step {
	return ruleset.Swap{
		Src: reg(b, unix.NFTA_BYTEORDER_SREG), Dst: reg(b, unix.NFTA_BYTEORDER_DREG),
		Len: int(nlmsg.B32(nlmsg.Find(b, unix.NFTA_BYTEORDER_LEN))), Size: int(nlmsg.B32(nlmsg.Find(b, unix.NFTA_BYTEORDER_SIZE))),
	}
}

func (d *decoder) lookup(b []byte) (ruleset.Step, error) {
	s := ruleset.Lookup{
		Src: reg(b, unix.NFTA_LOOKUP_SREG), Dst: reg(b, unix.NFTA_LOOKUP_DREG), Set: nlmsg.Str(nlmsg.Find(b, unix.NFTA_LOOKUP_SET)),
		Not: nlmsg.B32(nlmsg.Find(b, unix.NFTA_LOOKUP_FLAGS))&unix.NFT_LOOKUP_F_INV != 0,
	}
	id := ruleset.SetID{Family: d.table.family, Table: d.table.name, Name: s.Set}
	if err := d.fill(id); err != nil {
		return nil, err
	}
	set := d.out.Sets[id]
	words, not := "@"+s.Set, ""
	if !d.named[id] {
		words = setWords(d.loaded[s.Src], set)
	}
	if s.Not {
		not = "!= "
	}
	if len(set.Elements) > 0 && set.Elements[0].Verdict != nil {
		words = "vmap " + words
	}
	d.say("%s %s%s", d.fieldsOf(s.Src, set), not, words)
	return s, nil
}

// fieldsOf are the words for all that a key is made of.
func (d *decoder) fieldsOf(g ruleset.Reg, set ruleset.Set) string {
	words := []string{d.loaded[g]}
	if g < unix.NFT_REG32_00 && len(set.Fields) > 1 {
		g = unix.NFT_REG32_00 + (g-1)*4
	}
	for i := 0; i+1 < len(set.Fields); i++ {
		g += ruleset.Reg((set.Fields[i] + 3) / 4)
		words = append(words, d.loaded[g])
	}
	return strings.Join(words, " . ")
}

func (d *decoder) immediate(b []byte) ruleset.Step {
	data := nlmsg.Find(b, unix.NFTA_IMMEDIATE_DATA)
	v := verdictOf(nlmsg.Find(data, unix.NFTA_DATA_VERDICT))
	if v == nil {
		return ruleset.Put{Data: nlmsg.Find(data, unix.NFTA_DATA_VALUE), Dst: reg(b, unix.NFTA_IMMEDIATE_DREG)}
	}
	d.say("%s", strings.TrimSpace(verdicts[v.Code]+" "+v.Chain))
	return ruleset.End{Verdict: *v}
}

var verdicts = map[ruleset.Code]string{
	ruleset.Accept: "accept", ruleset.Drop: "drop", ruleset.Return: "return", ruleset.Jump: "jump", ruleset.Goto: "goto", ruleset.Continue: "continue",
}

// nat says where to only by its kind: another destination is what matters.
func (d *decoder) nat(name string, b []byte) ruleset.Step {
	destination := name == "redir" || name == "tproxy" || name == "nat" && nlmsg.B32(nlmsg.Find(b, unix.NFTA_NAT_TYPE)) == unix.NFT_NAT_DNAT
	if !destination {
		d.say("masquerade")
		return end(ruleset.Accept)
	}
	d.say("dnat")
	return end(ruleset.Redirected)
}

// limit is not reached by an ordinary packet.
func (d *decoder) limit(name string, b []byte) ruleset.Step {
	flags := nlmsg.Find(b, unix.NFTA_LIMIT_FLAGS)
	if name == "connlimit" {
		flags = nlmsg.Find(b, 2)
	}
	over := nlmsg.B32(flags)&1 != 0
	if name == "quota" {
		over = nlmsg.B32(nlmsg.Find(b, 2))&1 != 0
	}
	if over {
		d.say("%s over …", name)
		return ruleset.Never{}
	}
	d.say("%s …", name)
	return ruleset.Aside{}
}
