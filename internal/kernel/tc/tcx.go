package tc

import (
	"errors"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
)

// tcx keeps programs in the links' own lists of programs (since Linux 6.6): a
// packet does not pass a classifier on its way to them.
type tcx struct{ ns *os.File }

const loIndex = 1 // in every namespace

// knowsTCX reports whether the kernel does.
func knowsTCX() bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: loIndex, Attach: ebpf.AttachTCXIngress})
	return err == nil
}

func (p program) tcxType() ebpf.AttachType {
	if p.egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// attach puts p before all others, and takes older versions of it away.
func (t tcx) attach(_ *rtnl.Conn, p program, index int32) error {
	return t.inside(func() error {
		same, older, err := p.onLink(index)
		if err == nil && len(same) == 0 {
			err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(index), Program: p.Program, Attach: p.tcxType(), Anchor: link.Head()})
		}
		return errors.Join(err, p.remove(index, older))
	})
}

func (t tcx) detach(_ *rtnl.Conn, p program, index int32) error {
	return t.inside(func() error {
		same, older, err := p.onLink(index)
		return rtnl.Gone(errors.Join(err, p.remove(index, append(same, older...))))
	})
}

func (t tcx) attached(_ *rtnl.Conn, p program, index int32) (on bool, err error) {
	err = t.inside(func() error {
		same, _, err := p.onLink(index)
		on = len(same) > 0
		return rtnl.Gone(err)
	})
	return on, err
}

// inside runs fn where the links are: bpf(2) looks for them in the namespace of
// the thread.
func (t tcx) inside(fn func() error) error {
	if t.ns == nil {
		return fn()
	}
	return netns.Visit(t.ns, fn)
}

// onLink are the programs of p's name at its place: those with the same
// instructions, also when another isled loaded them, and the others.
func (p program) onLink(index int32) (same, older []ebpf.ProgramID, err error) {
	have, err := link.QueryPrograms(link.QueryOptions{Target: int(index), Attach: p.tcxType()})
	if err != nil {
		return nil, nil, err
	}
	for _, a := range have.Programs {
		name, tag, err := identity(a.ID)
		switch {
		case err != nil:
			return nil, nil, err
		case tag == p.tag:
			same = append(same, a.ID)
		case name == p.name:
			older = append(older, a.ID)
		}
	}
	return same, older, nil
}

// identity is nothing for a program that ended meanwhile.
func identity(id ebpf.ProgramID) (name, tag string, err error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", "", ignoreGone(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", "", err
	}
	return info.Name, info.Tag, nil
}

func (p program) remove(index int32, ids []ebpf.ProgramID) (err error) {
	for _, id := range ids {
		old, oerr := ebpf.NewProgramFromID(id)
		if oerr != nil {
			err = errors.Join(err, ignoreGone(oerr))
			continue
		}
		derr := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(index), Program: old, Attach: p.tcxType()})
		err = errors.Join(err, ignoreGone(derr), old.Close())
	}
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
