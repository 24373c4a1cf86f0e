package bpf

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// hook is one place where a program is attached.
type hook struct {
	name string
	at   ebpf.AttachType
	v6   bool
	back bool // gives back the address that was meant
	send bool // of unconnected UDP
}

var hooks = []hook{
	{"connect4", ebpf.AttachCGroupInet4Connect, false, false, false},
	{"connect6", ebpf.AttachCGroupInet6Connect, true, false, false},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, false, false, true},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, true, false, true},
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, false, true, false},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, true, true, false},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername, false, true, false},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername, true, true, false},
}

// Offsets in struct bpf_sock_addr (linux/bpf.h).
const (
	ctxIP4, ctxIP6, ctxPort, ctxProto = 4, 8, 24, 36
)

// The stack. Addresses are four words in network order, IPv4 as ::ffff:a.b.c.d.
//
//	asked    namespace cookie, protocol, port, address: the key of lo; its
//	         first word is the key of dns
//	socket   socket cookie, address, port: the key of sockets
//	meant    address, port: the value of sockets
//	row      the length of a prefix, then as asked, but the port last: the key of rows
//	target   the port that was found
const (
	askedCookie, askedProto, askedPort, askedAddr  = -32, -24, -20, -16
	socketCookie, socketAddr, socketPort           = -64, -56, -40
	meantAddr, meantPort                           = -88, -72
	rowBits, rowCookie, rowProto, rowAddr, rowPort = -124, -120, -112, -108, -92
	targetPort                                     = -128
)

// Offsets in a value of lo and of rows, and of sockets without the family. The
// last three are of rows: what is added to a port of the host, and which row it is.
const (
	toFamily, toAddr, toPort     = 20, 0, 16
	rowOffset, rowFirst, rowSize = 24, 28, 32
)

// wholeKey is the length of a key of rows with all of its port.
const wholeKey = 8 * (8 + 4 + 16 + 2)

var (
	mapped   = word(0, 0, 0xff, 0xff)
	resolver = word(127, 0, 0, 11)
	one      = word(0, 0, 0, 1)
	dnsPort  = int32(netPort(53))
)

const ipprotoMPTCP = 262 // is TCP as far as ports go

// word is four bytes as the programs see them in a register.
func word(b ...byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }

// netPort is a port in network order as the programs see it in a register.
func netPort(p uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p))
}

// Registers: the context, and a value found in a map.
const ctx, found = asm.R6, asm.R7

func (r *Redirects) program(h hook) asm.Instructions {
	ins := asm.Instructions{asm.Mov.Reg(ctx, asm.R1)}
	ins = append(ins, loadAddr(h)...)
	if h.back {
		ins = append(ins, r.back(h)...)
	} else {
		ins = append(ins, r.forward(h)...)
	}
	return append(ins, asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return())
}

// loadAddr puts the address and the port of the call into asked.
func loadAddr(h hook) (ins asm.Instructions) {
	for i := range int16(4) {
		switch {
		case h.v6:
			ins = append(ins, asm.LoadMem(asm.R2, ctx, ctxIP6+4*i, asm.Word))
		case i == 3:
			ins = append(ins, asm.LoadMem(asm.R2, ctx, ctxIP4, asm.Word))
		default:
			ins = append(ins, asm.Mov.Imm32(asm.R2, []int32{0, 0, mapped}[i]))
		}
		ins = append(ins, asm.StoreMem(asm.RFP, askedAddr+4*i, asm.R2, asm.Word))
	}
	return append(ins,
		asm.LoadMem(asm.R2, ctx, ctxPort, asm.Word),
		asm.StoreMem(asm.RFP, askedPort, asm.R2, asm.Word))
}

// loopback goes to out unless the address is a loopback one, and to v4 when it
// is one of IPv4.
func loopback() asm.Instructions {
	w := func(i int16) asm.Instruction { return asm.LoadMem(asm.R2, asm.RFP, askedAddr+4*i, asm.Word) }
	return asm.Instructions{
		w(0), asm.JNE.Imm32(asm.R2, 0, "out"),
		w(1), asm.JNE.Imm32(asm.R2, 0, "out"),
		w(2), asm.JEq.Imm32(asm.R2, mapped, "mapped"),
		asm.JNE.Imm32(asm.R2, 0, "out"),
		w(3), asm.JNE.Imm32(asm.R2, one, "out"),
		asm.Ja.Label("loopback"),
		w(3).WithSymbol("mapped"),
		asm.And.Imm32(asm.R2, word(0xff, 0, 0, 0)),
		asm.JNE.Imm32(asm.R2, word(127, 0, 0, 0), "out"),
		asm.Mov.Reg(asm.R1, ctx).WithSymbol("loopback"),
		asm.FnGetNetnsCookie.Call(),
		asm.StoreMem(asm.RFP, askedCookie, asm.R0, asm.DWord),
	}
}

// isResolver goes to other unless the address is 127.0.0.11.
func isResolver(other string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.RFP, askedAddr+8, asm.Word), asm.JNE.Imm32(asm.R2, mapped, other),
		asm.LoadMem(asm.R2, asm.RFP, askedAddr+12, asm.Word), asm.JNE.Imm32(asm.R2, resolver, other),
	}
}

// lookup finds the value of the key on the stack, or goes to other.
func lookup(m *ebpf.Map, key int32, other string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, other),
		asm.Mov.Reg(found, asm.R0),
	}
}

func (r *Redirects) forward(h hook) asm.Instructions {
	ins := append(loopback(), isResolver("published")...)
	ins = append(ins,
		asm.LoadMem(asm.R2, asm.RFP, askedPort, asm.Word),
		asm.JNE.Imm32(asm.R2, dnsPort, "published"))
	ins = append(ins, lookup(r.dns, askedCookie, "published")...)
	ins = append(ins,
		asm.LoadMem(asm.R2, found, 0, asm.Word),
		asm.StoreMem(ctx, ctxPort, asm.R2, asm.Word),
		asm.Ja.Label("out"),
		asm.LoadMem(asm.R2, ctx, ctxProto, asm.Word).WithSymbol("published"),
		asm.JNE.Imm32(asm.R2, ipprotoMPTCP, "proto"),
		asm.Mov.Imm(asm.R2, unix.IPPROTO_TCP),
		asm.StoreMem(asm.RFP, askedProto, asm.R2, asm.Word).WithSymbol("proto"))
	ins = append(ins, lookup(r.lo, askedCookie, "row")...)
	ins = append(ins,
		asm.LoadMem(asm.R2, found, toPort, asm.Word), asm.StoreMem(asm.RFP, targetPort, asm.R2, asm.Word),
		asm.Ja.Label("hit"))
	ins = append(ins, r.row()...)
	ins = append(ins, named("hit", r.refuse(h))...)
	ins = append(ins, r.remember()...)
	return append(ins, rewrite(h, asm.RFP, targetPort)...)
}

func named(label string, ins asm.Instructions) asm.Instructions {
	ins[0] = ins[0].WithSymbol(label)
	return ins
}

// row finds the row of ports that the asked one is in, and the one that
// corresponds to it.
func (r *Redirects) row() (ins asm.Instructions) {
	cp := func(from, to int16, size asm.Size) {
		ins = append(ins, asm.LoadMem(asm.R2, asm.RFP, from, size), asm.StoreMem(asm.RFP, to, asm.R2, size))
	}
	cp(askedCookie, rowCookie, asm.DWord)
	cp(askedProto, rowProto, asm.Word)
	cp(askedPort, rowPort, asm.Word)
	for i := range int16(4) {
		cp(askedAddr+4*i, rowAddr+4*i, asm.Word)
	}
	ins = append(named("row", ins), asm.StoreImm(asm.RFP, rowBits, wholeKey, asm.Word))
	ins = append(ins, lookup(r.rows, rowBits, "out")...)
	return append(ins,
		asm.LoadMem(asm.R2, asm.RFP, askedPort, asm.Word), asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.LoadMem(asm.R3, found, rowOffset, asm.Word), asm.Add.Reg(asm.R2, asm.R3),
		asm.And.Imm32(asm.R2, 0xffff), asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(asm.RFP, targetPort, asm.R2, asm.Word))
}

// refuse goes to out for what the kernel cannot do: a socket of IPv4 to an
// IPv6 container, and sendmsg of one of IPv6 to an IPv4 container.
func (r *Redirects) refuse(h hook) asm.Instructions {
	family := asm.LoadMem(asm.R2, found, toFamily, asm.Word)
	switch {
	case !h.v6:
		return asm.Instructions{family, asm.JNE.Imm32(asm.R2, unix.AF_INET, "out")}
	case h.send:
		return asm.Instructions{family, asm.JNE.Imm32(asm.R2, unix.AF_INET6, "out")}
	}
	return asm.Instructions{family}
}

// remember notes for the socket which address was meant by the one it gets.
func (r *Redirects) remember() asm.Instructions {
	ins := asm.Instructions{}
	cp := func(base asm.Register, from, to int16) {
		ins = append(ins, asm.LoadMem(asm.R2, base, from, asm.Word), asm.StoreMem(asm.RFP, to, asm.R2, asm.Word))
	}
	for i := range int16(4) {
		cp(found, toAddr+4*i, socketAddr+4*i)
		cp(asm.RFP, askedAddr+4*i, meantAddr+4*i)
	}
	cp(asm.RFP, targetPort, socketPort)
	cp(asm.RFP, askedPort, meantPort)
	return append(ins,
		asm.StoreImm(asm.RFP, socketPort+4, 0, asm.Word),
		asm.StoreImm(asm.RFP, meantPort+4, 0, asm.Word),
		asm.Mov.Reg(asm.R1, ctx),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, socketCookie, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, r.sockets.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, socketCookie),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, meantAddr),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call())
}

// rewrite gives the call the address found, and a port.
func rewrite(h hook, base asm.Register, port int16) (ins asm.Instructions) {
	set := func(base asm.Register, from, to int16) {
		ins = append(ins, asm.LoadMem(asm.R2, base, from, asm.Word), asm.StoreMem(ctx, to, asm.R2, asm.Word))
	}
	if h.v6 {
		for i := range int16(4) {
			set(found, toAddr+4*i, ctxIP6+4*i)
		}
	} else {
		set(found, toAddr+12, ctxIP4)
	}
	set(base, port, ctxPort)
	return ins
}

func (r *Redirects) back(h hook) asm.Instructions {
	ins := append(isResolver("published"),
		asm.Mov.Reg(asm.R1, ctx), asm.FnGetNetnsCookie.Call(),
		asm.StoreMem(asm.RFP, askedCookie, asm.R0, asm.DWord))
	ins = append(ins, lookup(r.dns, askedCookie, "published")...)
	ins = append(ins,
		asm.LoadMem(asm.R2, found, 0, asm.Word), asm.LoadMem(asm.R3, asm.RFP, askedPort, asm.Word),
		asm.JNE.Reg(asm.R2, asm.R3, "out"),
		asm.Mov.Imm32(asm.R2, dnsPort), asm.StoreMem(ctx, ctxPort, asm.R2, asm.Word),
		asm.Ja.Label("out"),
		asm.LoadMem(asm.R2, asm.RFP, askedPort, asm.Word).WithSymbol("published"),
		asm.StoreMem(asm.RFP, socketPort, asm.R2, asm.Word),
		asm.StoreImm(asm.RFP, socketPort+4, 0, asm.Word))
	for i := range int16(4) {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.RFP, askedAddr+4*i, asm.Word), asm.StoreMem(asm.RFP, socketAddr+4*i, asm.R2, asm.Word))
	}
	ins = append(ins,
		asm.Mov.Reg(asm.R1, ctx), asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.RFP, socketCookie, asm.R0, asm.DWord))
	ins = append(ins, lookup(r.sockets, socketCookie, "out")...)
	return append(ins, rewrite(h, found, toPort)...)
}
