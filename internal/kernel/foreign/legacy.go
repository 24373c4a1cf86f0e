package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/ruleset"
)

// getsockopt(2) of linux/netfilter_ipv4/ip_tables.h; ip6_tables.h has the same
// numbers.
const (
	soGetInfo    = 64
	soGetEntries = 65

	nameLen = 32
	infoLen = nameLen + 4 + 5*4 + 5*4 + 4 + 4
)

// world is where a family keeps its tables, and how struct ipt_entry and ip6t_entry
// are laid out.
type world struct {
	family, names string
	socket, level int

	addr     int // the length of an address: source, destination and their masks come first
	proto    int // where the protocol is, and behind it the flags
	flags    int
	targetAt int // where an entry says where its target is, and behind it where the next entry is
	matches  int // where the matches begin
	isGoto   byte
	unknown  byte // flags that are not understood
}

var worlds = []world{
	{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 4, 80, 82, 88, 112, 2, 0},
	{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 16, 128, 131, 140, 168, 4, 2},
}

// legacy are the tables of iptables-legacy in the calling thread's namespace.
func legacy() (out []ruleset.Chain, err error) {
	for _, w := range worlds {
		names, err := os.ReadFile(w.names)
		if errors.Is(err, os.ErrNotExist) {
			continue // the kernel has none
		}
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Fields(string(names)) {
			t, err := w.table(name)
			if err != nil {
				return nil, fmt.Errorf("read %s table %s of iptables-legacy: %w", w.family, name, err)
			}
			out = append(out, t.chains()...)
		}
	}
	return out, nil
}

// legacyTable is one as the kernel gives it: its entries one behind the other, and
// where the chains at its hooks begin and have their policies.
type legacyTable struct {
	world
	name    string
	hooks   uint32
	begin   [5]int
	policy  [5]int
	entries []byte
}

func (w world) table(name string) (t legacyTable, err error) {
	t = legacyTable{world: w, name: name}
	fd, err := unix.Socket(w.socket, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return t, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoLen)
	copy(info, name)
	if err := getsockopt(fd, w.level, soGetInfo, info); err != nil {
		return t, err
	}
	field := func(i int) uint32 { return binary.NativeEndian.Uint32(info[nameLen+4*i:]) }
	t.hooks = field(0)
	for i := range t.begin {
		t.begin[i], t.policy[i] = int(field(1+i)), int(field(6+i))
	}
	const head = nameLen + 8
	size := field(12)
	all := make([]byte, head+int(size))
	copy(all, name)
	binary.NativeEndian.PutUint32(all[nameLen:], size)
	err = getsockopt(fd, w.level, soGetEntries, all)
	t.entries = all[head:]
	return t, err
}

// entry is one rule, with its place in the table.
type entry struct {
	at int
	b  []byte
}

func (t legacyTable) each(do func(e entry)) {
	for at := 0; at+t.matches <= len(t.entries); {
		next := int(binary.NativeEndian.Uint16(t.entries[at+t.targetAt+2:]))
		if next < t.matches || at+next > len(t.entries) {
			return
		}
		do(entry{at, t.entries[at : at+next]})
		at += next
	}
}

// target is the name of an entry's target and what it says: the empty name has a
// verdict, ERROR the name of the chain that begins behind it.
func (t legacyTable) target(e entry) (name string, info xtInfo) {
	at := int(binary.NativeEndian.Uint16(e.b[t.targetAt:]))
	if at+xtHead > len(e.b) {
		return "", nil
	}
	return nlmsg.Str(e.b[at+2 : at+xtHead-1]), xtInfo(e.b[at+xtHead:])
}

// xtHead is struct xt_entry_match and xt_entry_target: a length, a name, a revision.
const xtHead = 32

// chains are those of the hooks, and those that are jumped to.
func (t legacyTable) chains() (out []ruleset.Chain) {
	names, at := t.names(), 0
	started := map[int]bool{}
	t.each(func(e entry) {
		if c, ok := names[e.at]; ok && !started[e.at] {
			started[e.at] = true
			out, at = append(out, c), len(out)
		}
		if name, _ := t.target(e); name == "ERROR" || len(out) == 0 {
			return
		}
		c := &out[at]
		if v := t.verdict(e, names); t.isPolicy(e, c.Hook) {
			c.Drop = v.Code == ruleset.Drop
			return
		}
		c.Rules = append(c.Rules, t.rule(e, names, len(c.Rules)+1))
	})
	return out
}

// names are the chains, by where they begin.
func (t legacyTable) names() map[int]ruleset.Chain {
	out := map[int]ruleset.Chain{}
	for i, hook := range hooks {
		if t.hooks&(1<<i) != 0 {
			out[t.begin[i]] = ruleset.Chain{
				Family: t.family, Table: t.name, Name: strings.ToUpper(string(hook)), Kind: t.kind(), Hook: hook, Priority: t.priority(hook), Legacy: true,
			}
		}
	}
	t.each(func(e entry) {
		if name, info := t.target(e); name == "ERROR" {
			out[e.at+len(e.b)] = ruleset.Chain{Family: t.family, Table: t.name, Name: nlmsg.Str(info), Legacy: true}
		}
	})
	return out
}

func (t legacyTable) kind() string {
	if t.name == "nat" {
		return "nat"
	}
	return "filter"
}

// priority is where in its hook a table is asked (linux/netfilter_ipv4.h).
func (t legacyTable) priority(hook ruleset.Hook) int32 {
	switch {
	case t.name == "nat" && (hook == ruleset.Postrouting || hook == ruleset.Input):
		return 100
	case t.name == "nat":
		return -100
	}
	return map[string]int32{"raw": -300, "mangle": -150, "security": 50}[t.name]
}

func (t legacyTable) isPolicy(e entry, hook ruleset.Hook) bool {
	for i, h := range hooks {
		if h == hook {
			return t.policy[i] == e.at
		}
	}
	return false
}

// verdict is that of a standard target.
func (t legacyTable) verdict(e entry, names map[int]ruleset.Chain) (v ruleset.Verdict) {
	name, info := t.target(e)
	if name != "" {
		return v
	}
	const xtReturn = -5
	switch n := int32(info.u32(0)); {
	case n == -1:
		v.Code = ruleset.Drop
	case n == xtReturn:
		v.Code = ruleset.Return
	case n < 0:
		v.Code = ruleset.Accept
	case int(n) != e.at+len(e.b): // that would be a rule without a target
		if v.Code, v.Chain = ruleset.Jump, names[int(n)].Name; e.b[t.flags]&t.isGoto != 0 {
			v.Code = ruleset.Goto
		}
	}
	return v
}

// rule is an entry with all its conditions.
func (t legacyTable) rule(e entry, names map[int]ruleset.Chain, number int) ruleset.Rule {
	d := &decoder{}
	steps := t.header(d, e.b)
	for at := t.matches; at+xtHead <= int(binary.NativeEndian.Uint16(e.b[t.targetAt:])); {
		size := int(binary.NativeEndian.Uint16(e.b[at:]))
		if size < xtHead || at+size > len(e.b) {
			break
		}
		steps = append(steps, d.xtMatch(nlmsg.Str(e.b[at+2:at+xtHead-1]), uint32(e.b[at+xtHead-1]), xtInfo(e.b[at+xtHead:at+size])))
		at += size
	}
	if name, _ := t.target(e); name != "" {
		steps = append(steps, d.xtTarget(name))
	} else if v := t.verdict(e, names); v.Code != ruleset.Continue {
		d.say("%s", strings.TrimSpace(verdicts[v.Code]+" "+v.Chain))
		steps = append(steps, ruleset.End{Verdict: v})
	}
	return ruleset.Rule{Handle: uint64(number), Text: shorter.Replace(strings.Join(d.words, " ")), Steps: steps}
}

// Bits of what an entry's header is the opposite of.
const (
	notIn = 1 << iota
	notOut
	notTOS
	notSource
	notDest
	notFragment
	notProto
)

// header are the conditions of an entry itself: addresses, interfaces, protocol.
func (t legacyTable) header(d *decoder, b []byte) (steps []ruleset.Step) {
	n, not := t.addr, b[t.flags+1]
	ifaces := b[4*n:]
	steps = append(steps, t.address(d, "saddr", 0, b[:n], b[2*n:3*n], not&notSource != 0)...)
	steps = append(steps, t.address(d, "daddr", 1, b[n:2*n], b[3*n:4*n], not&notDest != 0)...)
	steps = append(steps, iface(d, "iifname", ruleset.InName, ifaces[:16], ifaces[32:48], not&notIn != 0)...)
	steps = append(steps, iface(d, "oifname", ruleset.OutName, ifaces[16:32], ifaces[48:64], not&notOut != 0)...)
	if proto := b[t.proto]; proto != 0 {
		d.say("meta l4proto %s%s", bang(not&notProto != 0), value("meta l4proto", []byte{proto}))
		steps = append(steps, ruleset.Load{Field: ruleset.Field{Of: ruleset.L4Proto}, Dst: 1}, equal(1, []byte{proto}, not&notProto != 0))
	}
	if t.family == "ip" && b[t.flags]&1 != 0 && not&notFragment == 0 { // the rest of fragments, which begin no connection
		steps = append(steps, ruleset.Never{})
	}
	if b[t.flags]&t.unknown != 0 {
		steps = append(steps, ruleset.Perhaps{})
	}
	return steps
}

func (t legacyTable) address(d *decoder, what string, which int, a, mask []byte, not bool) []ruleset.Step {
	if allZero(mask) {
		return nil
	}
	d.say("%s %s %s%s", t.family, what, bang(not), network(a, mask))
	offset := map[string]int{"ip": 12, "ip6": 8}[t.family] + which*t.addr
	return masked(ruleset.Field{Of: ruleset.NetworkHeader, Offset: offset, Len: t.addr}, a, mask, not)
}

// network is an address with its mask, in words.
func network(a, mask []byte) string {
	ip, _ := netip.AddrFromSlice(a)
	ones := 0
	for _, b := range mask {
		for ; b != 0; b <<= 1 {
			ones++
		}
	}
	if ones == ip.BitLen() {
		return ip.String()
	}
	return fmt.Sprintf("%s/%d", ip, ones)
}

func iface(d *decoder, what string, part ruleset.Part, name, mask []byte, not bool) []ruleset.Step {
	if allZero(mask) {
		return nil
	}
	words := nlmsg.Str(name)
	if n := bytes.IndexByte(mask, 0); n >= 0 && n <= len(words) { // "+" of iptables is behind what is compared
		words = words[:n] + "*"
	}
	d.say("%s %s%q", what, bang(not), words)
	return masked(ruleset.Field{Of: part}, name, mask, not)
}

// masked compares a field with a value, in the bits of a mask.
func masked(f ruleset.Field, v, mask []byte, not bool) []ruleset.Step {
	want := make([]byte, len(v))
	for i := range v {
		want[i] = v[i] & mask[i]
	}
	return []ruleset.Step{ruleset.Load{Field: f, Dst: 1}, ruleset.Mask{Src: 1, Dst: 1, And: mask}, equal(1, want, not)}
}

func equal(g ruleset.Reg, v []byte, not bool) ruleset.Step {
	if not {
		return ruleset.Compare{Src: g, Op: ruleset.Neq, Data: v}
	}
	return ruleset.Compare{Src: g, Data: v}
}

func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
