package foreign

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/ruleset"
)

// What iptables-nft cannot say in nftables' own words it puts in as it was for
// iptables: the structs of linux/netfilter/xt_*.h.

// xtInfo is the struct of a match; what is beyond its end is zero.
type xtInfo []byte

func (x xtInfo) u8(at int) uint8 {
	if at >= len(x) {
		return 0
	}
	return x[at]
}

func (x xtInfo) u16(at int) uint16 { return uint16(x.u8(at)) | uint16(x.u8(at+1))<<8 }

func (x xtInfo) u32(at int) uint32 { return uint32(x.u16(at)) | uint32(x.u16(at+2))<<16 }

func (d *decoder) match(b []byte) ruleset.Step {
	name, rev := nlmsg.Str(nlmsg.Find(b, unix.NFTA_MATCH_NAME)), nlmsg.B32(nlmsg.Find(b, unix.NFTA_MATCH_REV))
	return d.xtMatch(name, rev, xtInfo(nlmsg.Find(b, unix.NFTA_MATCH_INFO)))
}

func (d *decoder) xtMatch(name string, rev uint32, x xtInfo) ruleset.Step {
	switch name {
	case "comment":
		d.say("/* %s */", nlmsg.Str(x))
		return ruleset.Aside{}
	case "limit":
		d.say("limit …")
		return ruleset.Aside{}
	case "conntrack":
		return d.conntrack(x, rev)
	case "state":
		return d.states(uint16(x.u32(0)), false)
	case "tcp", "udp", "sctp":
		return d.ports(name, x)
	case "multiport":
		return d.multiport(x, rev)
	case "addrtype":
		return d.addrtype(x, rev)
	case "mark":
		d.say("mark %#x/%#x", x.u32(0), x.u32(4))
		if (x.u32(0) == 0) == (x.u8(8) == 0) {
			return ruleset.Aside{}
		}
		return ruleset.Never{}
	case "icmp", "icmp6":
		d.say("%s", name)
		return ruleset.Never{} // packets that we ask for have ports
	case "rpfilter":
		d.say("rpfilter")
		if x.u8(0)&4 != 0 {
			return ruleset.Never{}
		}
		return ruleset.Aside{}
	}
	d.say("(match %s)", name)
	return ruleset.Perhaps{}
}

// conntrack is xt_conntrack_mtinfo1 to 3, of which the state is understood.
func (d *decoder) conntrack(x xtInfo, rev uint32) ruleset.Step {
	const flags, invert, state = 146, 148, 150
	mask := x.u16(state)
	if rev == 1 {
		mask = uint16(x.u8(state))
	}
	if x.u16(flags) != 1 {
		d.say("(match conntrack)")
		return ruleset.Perhaps{}
	}
	return d.states(mask, x.u16(invert)&1 != 0)
}

func (d *decoder) states(mask uint16, not bool) ruleset.Step {
	d.say("ct state %s%s", bang(not), stateWords(mask))
	return ruleset.States{Mask: mask, Not: not}
}

func stateWords(mask uint16) string {
	words := named(binary.NativeEndian.AppendUint32(nil, uint32(mask)), []string{"invalid", "established", "related", "new", "", "", "snat", "dnat", "untracked"})
	return words
}

func bang(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

const everyPort = 0xffff

// ports are xt_tcp and xt_udp: rows of ports, and of TCP the flags, of which the
// packets that we ask for have SYN alone.
func (d *decoder) ports(proto string, x xtInfo) ruleset.Step {
	s := ruleset.Ports{Source: [][2]uint16{{x.u16(0), x.u16(2)}}, Dest: [][2]uint16{{x.u16(4), x.u16(6)}}}
	inverse := x.u8(8)
	if proto == "tcp" {
		inverse = x.u8(11)
	}
	s.NotSource, s.NotDest = inverse&1 != 0, inverse&2 != 0
	d.sayPorts(proto+" sport", s.NotSource, s.Source)
	d.sayPorts(proto+" dport", s.NotDest, s.Dest)
	const syn = 0x02
	if mask, want := x.u8(9), x.u8(10); proto == "tcp" && mask != 0 && (syn&mask == want) == (inverse&4 != 0) {
		d.say("tcp flags …")
		return ruleset.Never{}
	}
	return s
}

func (d *decoder) sayPorts(what string, not bool, rows [][2]uint16) {
	var out []string
	for _, r := range rows {
		switch {
		case r == [2]uint16{0, everyPort}:
			continue
		case r[0] == r[1]:
			out = append(out, fmt.Sprint(r[0]))
		default:
			out = append(out, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	if len(out) > 0 {
		d.say("%s %s%s", what, bang(not), strings.Join(out, ","))
	}
}

// multiport is xt_multiport and xt_multiport_v1.
func (d *decoder) multiport(x xtInfo, rev uint32) ruleset.Step {
	const ports, isRow, invert = 2, 32, 47
	var rows [][2]uint16
	for i := 0; i < int(min(x.u8(1), 15)); i++ {
		row := [2]uint16{x.u16(ports + 2*i), x.u16(ports + 2*i)}
		if rev == 1 && x.u8(isRow+i) != 0 {
			i++
			row[1] = x.u16(ports + 2*i)
		}
		rows = append(rows, row)
	}
	not := rev == 1 && x.u8(invert) != 0
	switch x.u8(0) {
	case 0:
		d.sayPorts("sport", not, rows)
		return ruleset.Ports{Source: rows, NotSource: not}
	case 1:
		d.sayPorts("dport", not, rows)
		return ruleset.Ports{Dest: rows, NotDest: not}
	}
	d.sayPorts("port", not, rows)
	return ruleset.Ports{Source: rows, Dest: rows, NotSource: not, NotDest: not, Either: !not}
}

// addrtype is xt_addrtype_info and its _v1.
func (d *decoder) addrtype(x xtInfo, rev uint32) ruleset.Step {
	s := ruleset.AddrTypes{Source: x.u16(0), Dest: x.u16(2)}
	if rev == 0 {
		s.NotSource, s.NotDest = x.u32(4) != 0, x.u32(8) != 0
	} else {
		s.NotSource, s.NotDest = x.u32(4)&1 != 0, x.u32(4)&2 != 0
	}
	kinds := []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast"}
	if s.Source != 0 {
		d.say("fib saddr type %s%s", bang(s.NotSource), named(binary.NativeEndian.AppendUint32(nil, uint32(s.Source)), kinds))
	}
	if s.Dest != 0 {
		d.say("fib daddr type %s%s", bang(s.NotDest), named(binary.NativeEndian.AppendUint32(nil, uint32(s.Dest)), kinds))
	}
	return s
}

// aside are the targets after which a packet goes on.
var aside = map[string]bool{
	"LOG": true, "NFLOG": true, "MARK": true, "CONNMARK": true, "CT": true, "NOTRACK": true, "TRACE": true, "TCPMSS": true, "CHECKSUM": true,
	"CLASSIFY": true, "TOS": true, "DSCP": true, "TTL": true, "HL": true, "AUDIT": true, "SET": true, "SECMARK": true, "CONNSECMARK": true,
}

func (d *decoder) target(b []byte) ruleset.Step {
	return d.xtTarget(nlmsg.Str(nlmsg.Find(b, unix.NFTA_TARGET_NAME)))
}

func (d *decoder) xtTarget(name string) ruleset.Step {
	d.say("%s", strings.ToLower(name))
	switch name {
	case "REJECT":
		return end(ruleset.Drop)
	case "DNAT", "REDIRECT", "TPROXY":
		return end(ruleset.Redirected)
	case "MASQUERADE", "SNAT", "NETMAP", "NFQUEUE":
		return end(ruleset.Accept)
	}
	if aside[name] {
		return ruleset.Aside{}
	}
	return ruleset.Perhaps{}
}
