package tc

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
)

// Guards are the loaded programs.
type Guards struct {
	egress, ingress, port program
}

type program struct {
	*ebpf.Program
	name   string
	parent uint32 // where it is attached
	tag    string // of its instructions, by which it is known again
}

// Numbers of linux/pkt_sched.h and linux/pkt_cls.h.
const (
	clsact        = 0xfffffff1
	clsactHandle  = 0xffff0000
	clsactIngress = 0xfffffff2
	clsactEgress  = 0xfffffff3

	tcaKind, tcaOptions                     = 1, 2
	bpfFD, bpfName, bpfFlags, bpfTag        = 6, 7, 8, 10
	directAction                            = 1
	priority                         uint32 = 73 // among the filters of others: ours come early
	handle                                  = 1
)

// Open loads the programs. What the kernel cannot do is a
// probe.NotSupportedError.
func Open(mark uint32) (g *Guards, err error) {
	g = &Guards{
		egress:  program{name: "isle_guard", parent: clsactEgress},
		ingress: program{name: "isle_inside", parent: clsactIngress},
		port:    program{name: "isle_port", parent: clsactIngress},
	}
	err = errors.Join(
		g.egress.load(&ebpf.ProgramSpec{Instructions: egress(mark)}),
		g.ingress.load(&ebpf.ProgramSpec{Instructions: ingress()}),
		g.port.load(&ebpf.ProgramSpec{Instructions: port()}))
	if err != nil {
		return nil, errors.Join(&probe.NotSupportedError{Feature: "guarding bridges by eBPF", Since: "4.18", Err: err}, g.Close())
	}
	return g, nil
}

func (p *program) load(spec *ebpf.ProgramSpec) (err error) {
	spec.Name, spec.Type, spec.License = p.name, ebpf.SchedCLS, "GPL"
	if p.Program, err = ebpf.NewProgram(spec); err != nil {
		return fmt.Errorf("load eBPF program %s: %w", p.name, err)
	}
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("look at eBPF program %s: %w", p.name, err)
	}
	p.tag = info.Tag
	return nil
}

// Close lets go of the programs; those that are attached go on.
func (g *Guards) Close() error {
	var errs []error
	for _, p := range []program{g.egress, g.ingress, g.port} {
		if p.Program != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// Set puts the guards on a link, the one at the ingress only when the network
// is internal.
func (g *Guards) Set(c *rtnl.Conn, index int32, internal bool) error {
	if err := g.egress.attach(c, index); err != nil {
		return err
	}
	if internal {
		return g.ingress.attach(c, index)
	}
	return g.ingress.detach(c, index)
}

// SetPort puts a guard on the link of a container.
func (g *Guards) SetPort(c *rtnl.Conn, index int32) error { return g.port.attach(c, index) }

// DeletePort takes it off again.
func (g *Guards) DeletePort(c *rtnl.Conn, index int32) error { return g.port.detach(c, index) }

// GetPort reports whether it is there.
func (g *Guards) GetPort(c *rtnl.Conn, index int32) (bool, error) { return g.port.attached(c, index) }

// Delete takes the guards off a link.
func (g *Guards) Delete(c *rtnl.Conn, index int32) error {
	return errors.Join(g.egress.detach(c, index), g.ingress.detach(c, index))
}

// Get reports which guards are on a link.
func (g *Guards) Get(c *rtnl.Conn, index int32) (guarded, internal bool, err error) {
	if guarded, err = g.egress.attached(c, index); err != nil {
		return false, false, err
	}
	internal, err = g.ingress.attached(c, index)
	return guarded, internal, err
}

// attach makes the place for filters, if there is none, and puts p there, by one
// sendmsg.
func (p program) attach(c *rtnl.Conn, index int32) error {
	errs, err := c.Execute(
		message(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, clsactHandle, clsact, 0, func(a *nlmsg.Attrs) {
			a.Str(tcaKind, "clsact")
		}),
		p.filter(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, index, func(a *nlmsg.Attrs) {
			a.Str(tcaKind, "bpf").Nest(tcaOptions, func(a *nlmsg.Attrs) {
				a.U32(bpfFD, uint32(p.FD())).Str(bpfName, p.name).U32(bpfFlags, directAction)
			})
		}))
	if err == nil && !errors.Is(errs[0], unix.EEXIST) {
		err = errs[0]
	}
	if err == nil {
		err = errs[1]
	}
	if err != nil {
		return fmt.Errorf("attach eBPF program %s: %w", p.name, err)
	}
	return nil
}

func (p program) detach(c *rtnl.Conn, index int32) error {
	err := c.Do(p.filter(unix.RTM_DELTFILTER, 0, index, func(a *nlmsg.Attrs) { a.Str(tcaKind, "bpf") }))
	if errors.Is(err, unix.EINVAL) { // there is no clsact on the link
		return nil
	}
	if err = rtnl.Gone(err); err != nil {
		return fmt.Errorf("detach eBPF program %s: %w", p.name, err)
	}
	return nil
}

func (p program) attached(c *rtnl.Conn, index int32) (bool, error) {
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
	return message(typ, flags, index, h, p.parent, priority<<16|uint32(be(unix.ETH_P_ALL)), attrs)
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
