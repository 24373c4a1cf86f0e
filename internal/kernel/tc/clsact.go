package tc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
)

// clsact keeps programs as filters of the qdisc of that name.
type clsact struct{}

// Numbers of linux/pkt_sched.h and linux/pkt_cls.h.
const (
	clsactParent  = 0xfffffff1
	clsactHandle  = 0xffff0000
	clsactIngress = 0xfffffff2
	clsactEgress  = 0xfffffff3

	tcaKind, tcaOptions                     = 1, 2
	bpfFD, bpfName, bpfFlags, bpfTag        = 6, 7, 8, 10
	directAction                            = 1
	priority                         uint32 = 73 // among the filters of others: ours come early
	handle                                  = 1
)

// attach makes the place for filters, if there is none, and puts p there, by one
// sendmsg.
func (clsact) attach(c *rtnl.Conn, p program, index int32) error {
	errs, err := c.Execute(
		message(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, clsactHandle, clsactParent, 0, func(a *nlmsg.Attrs) {
			a.Str(tcaKind, "clsact")
		}),
		p.filter(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, index, func(a *nlmsg.Attrs) {
			a.Str(tcaKind, "bpf").Nest(tcaOptions, func(a *nlmsg.Attrs) {
				a.U32(bpfFD, uint32(p.FD())).Str(bpfName, p.name).U32(bpfFlags, directAction)
			})
		}))
	if err != nil {
		return err
	}
	if errs[0] != nil && !errors.Is(errs[0], unix.EEXIST) {
		return errs[0]
	}
	return errs[1]
}

func (clsact) detach(c *rtnl.Conn, p program, index int32) error {
	err := c.Do(p.filter(unix.RTM_DELTFILTER, 0, index, func(a *nlmsg.Attrs) { a.Str(tcaKind, "bpf") }))
	if errors.Is(err, unix.EINVAL) { // there is no clsact on the link
		return nil
	}
	return rtnl.Gone(err)
}

func (clsact) attached(c *rtnl.Conn, p program, index int32) (bool, error) {
	bs, err := c.Dump(p.filter(unix.RTM_GETTFILTER, 0, index, func(*nlmsg.Attrs) {}))
	if errors.Is(err, unix.EINVAL) || rtnl.Gone(err) == nil && err != nil {
		return false, nil
	}
	for _, b := range bs {
		if len(b) > tcmsgLen && fmt.Sprintf("%x", nlmsg.Find(b[tcmsgLen:], tcaOptions, bpfTag)) == p.tag {
			return true, nil
		}
	}
	return false, err
}

// filter is a message about our filter at p's place.
func (p program) filter(typ, flags uint16, index int32, attrs func(*nlmsg.Attrs)) nlmsg.Message {
	h := uint32(handle)
	if typ == unix.RTM_GETTFILTER {
		h = 0
	}
	parent := uint32(clsactIngress)
	if p.egress {
		parent = clsactEgress
	}
	return message(typ, flags, index, h, parent, priority<<16|uint32(be(unix.ETH_P_ALL)), attrs)
}

const tcmsgLen = 20

// message begins with struct tcmsg.
func message(typ, flags uint16, index int32, handle, parent, info uint32, attrs func(*nlmsg.Attrs)) nlmsg.Message {
	a := nlmsg.Header(make([]byte, 4)...)
	for _, v := range []uint32{uint32(index), handle, parent, info} {
		a.Raw(native(v))
	}
	attrs(a)
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}
