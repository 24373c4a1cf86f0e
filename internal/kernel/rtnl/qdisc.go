package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// Our queueing disciplines are token bucket filters (tc-tbf(8)) at the root of links,
// known by their handle.

const (
	shapeHandle = 0x6973 << 16 // "is"

	tcmsgSize = 20
	tcRoot    = 0xffffffff // TC_H_ROOT
	tbfParms  = 1          // TCA_TBF_PARMS and its relatives (linux/pkt_sched.h)
	tbfRate64 = 4
	tbfBurst  = 6

	// A packet that would have to wait longer is dropped: 1/patience seconds.
	patience = 40
	ethernet = 1 // TC_LINKLAYER_ETHERNET: the kernel needs no table of rates
)

func qdiscMessage(typ, flags uint16, index int32) (nlmsg.Message, *nlmsg.Attrs) {
	h := make([]byte, tcmsgSize)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint32(h[8:], shapeHandle)
	binary.NativeEndian.PutUint32(h[12:], tcRoot)
	return nlmsg.Message{Type: typ, Flags: flags}, nlmsg.Header(h...)
}

// SetShape holds a link back, whatever held it back before.
func SetShape(index int32, s netspec.Shape) nlmsg.Message {
	m, a := qdiscMessage(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index)
	a.Str(unix.TCA_KIND, "tbf").Nest(unix.TCA_OPTIONS, func(a *nlmsg.Attrs) {
		a.Put(tbfParms, tbfOptions(s)).U32(tbfBurst, s.Burst)
		if s.Rate > 1<<32-1 {
			a.Put(tbfRate64, binary.NativeEndian.AppendUint64(nil, s.Rate))
		}
	})
	m.Data = a.Data()
	return m
}

// tbfOptions is struct tc_tbf_qopt. The limit is also where the burst is read from: the
// kernel gives back a time in its place, which is rounded.
func tbfOptions(s netspec.Shape) []byte {
	b := make([]byte, 36)
	b[1] = ethernet
	binary.NativeEndian.PutUint32(b[8:], uint32(min(s.Rate, 1<<32-1)))
	binary.NativeEndian.PutUint32(b[24:], uint32(min(s.Rate/patience+uint64(s.Burst), 1<<32-1)))
	return b
}

// DelShape lets a link send freely again.
func DelShape(index int32) nlmsg.Message {
	m, a := qdiscMessage(unix.RTM_DELQDISC, 0, index)
	m.Data = a.Data()
	return m
}

// Shapes are ours in the namespace, by the number of the link. NS and Link are not
// filled in.
func (c *Conn) Shapes() (map[int32]netspec.Shape, error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETQDISC, Data: make([]byte, tcmsgSize)})
	out := map[int32]netspec.Shape{}
	for _, b := range bs {
		if index, s, ok := parseShape(b); ok {
			out[index] = s
		}
	}
	return out, err
}

func parseShape(b []byte) (index int32, s netspec.Shape, ok bool) {
	if len(b) < tcmsgSize || nlmsg.U32(b[8:]) != shapeHandle || nlmsg.Str(nlmsg.Find(b[tcmsgSize:], unix.TCA_KIND)) != "tbf" {
		return 0, s, false
	}
	opts := nlmsg.Find(b[tcmsgSize:], unix.TCA_OPTIONS, tbfParms)
	if len(opts) < 36 {
		return 0, s, false
	}
	s.Rate = uint64(nlmsg.U32(opts[8:]))
	if r := nlmsg.Find(b[tcmsgSize:], unix.TCA_OPTIONS, tbfRate64); len(r) == 8 {
		s.Rate = binary.NativeEndian.Uint64(r)
	}
	s.Burst = uint32(uint64(nlmsg.U32(opts[24:])) - s.Rate/patience)
	return int32(nlmsg.U32(b[4:])), s, true
}
