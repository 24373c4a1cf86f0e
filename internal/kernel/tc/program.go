package tc

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Offsets in struct __sk_buff, and of what is in a frame.
const (
	skbMark, skbProtocol, skbIngress, skbIfindex = 8, 16, 36, 40
	etherLen                                     = 14
)

// What a program answers: let others decide, or drop.
const (
	next = -1
	shot = 2
)

func verdicts(ins asm.Instructions) asm.Instructions {
	return append(ins,
		asm.Mov.Imm(asm.R0, shot).WithSymbol("shot"), asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"), asm.Return())
}

// egress drops what came in somewhere and carries no mark.
func egress(mark uint32) asm.Instructions {
	return verdicts(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, skbIngress, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "next"),
		asm.LoadMem(asm.R2, asm.R1, skbMark, asm.Word),
		asm.And.Imm32(asm.R2, int32(mark)),
		asm.JNE.Imm32(asm.R2, 0, "next"),
	})
}

// struct bpf_fib_lookup on the stack: where its fields are.
const (
	fib      = -64
	fibSize  = 64
	fibIndex = fib + 8
	fibSrc   = fib + 16
	fibDst   = fib + 32
)

// Answers of bpf_fib_lookup: the others are that the packet is routed.
const fibBlackhole, fibForwardingOff = 1, 5

// ingress drops packets that would be routed on: those for the host itself are
// not.
func ingress() asm.Instructions {
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R2, 0)}
	for off := int16(fib); off < 0; off += 8 {
		ins = append(ins, asm.StoreMem(asm.RFP, off, asm.R2, asm.DWord))
	}
	ins = append(ins,
		asm.LoadMem(asm.R2, asm.R6, skbIfindex, asm.Word), asm.StoreMem(asm.RFP, fibIndex, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm32(asm.R2, be(unix.ETH_P_IP), "ip4"),
		asm.JNE.Imm32(asm.R2, be(unix.ETH_P_IPV6), "next"),
		asm.StoreImm(asm.RFP, fib, unix.AF_INET6, asm.Byte))
	ins = append(ins, load(etherLen+8, fibSrc, 32)...)
	ins = append(ins, asm.Ja.Label("lookup"), asm.StoreImm(asm.RFP, fib, unix.AF_INET, asm.Byte).WithSymbol("ip4"))
	ins = append(ins, load(etherLen+12, fibSrc, 4)...)
	ins = append(ins, load(etherLen+16, fibDst, 4)...)
	return verdicts(append(ins,
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("lookup"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, fib),
		asm.Mov.Imm(asm.R3, fibSize), asm.Mov.Imm(asm.R4, 0),
		asm.FnFibLookup.Call(),
		asm.JSLT.Imm(asm.R0, fibBlackhole, "shot"),
		asm.JSLE.Imm(asm.R0, fibForwardingOff, "next")))
}

// Where things are in a frame with IPv6 and, right behind it, ICMPv6.
const (
	frameNext   = etherLen + 6
	frameSaddr  = etherLen + 8
	frameType   = etherLen + 40
	frameTarget = etherLen + 40 + 8
	advert      = 136

	portByte, portSaddr, portTarget = -40, -16, -32
)

// port drops neighbour advertisements of which the target is not the sender.
func port() asm.Instructions {
	byteAt := func(from int32) asm.Instructions {
		return append(load(from, portByte, 1), asm.LoadMem(asm.R2, asm.RFP, portByte, asm.Byte))
	}
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word), asm.JNE.Imm32(asm.R2, be(unix.ETH_P_IPV6), "next"),
	}
	ins = append(append(ins, byteAt(frameNext)...), asm.JNE.Imm(asm.R2, unix.IPPROTO_ICMPV6, "next"))
	ins = append(append(ins, byteAt(frameType)...), asm.JNE.Imm(asm.R2, advert, "next"))
	ins = append(append(ins, load(frameSaddr, portSaddr, 16)...), load(frameTarget, portTarget, 16)...)
	for off := int16(0); off < 16; off += 8 {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.RFP, portSaddr+off, asm.DWord), asm.LoadMem(asm.R3, asm.RFP, portTarget+off, asm.DWord),
			asm.JNE.Reg(asm.R2, asm.R3, "shot"))
	}
	return verdicts(append(ins, asm.Ja.Label("next")))
}

// load copies bytes of the packet to the stack; a packet that is too short is
// dropped.
func load(from, to, n int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, from),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, to), asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "shot"),
	}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// be is a protocol number in network order, as the program sees it.
func be(p uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p)))
}
