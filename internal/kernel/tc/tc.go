package tc

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
)

// Guards are the loaded programs, for the links of one namespace.
type Guards struct {
	egress, ingress, port program
	at                    places
}

type program struct {
	*ebpf.Program
	name   string
	egress bool   // where it is attached: at the egress, or at the ingress
	tag    string // of its instructions, by which it is known again
}

// places are where the programs of links are kept.
type places interface {
	attach(c *rtnl.Conn, p program, index int32) error
	detach(c *rtnl.Conn, p program, index int32) error
	attached(c *rtnl.Conn, p program, index int32) (bool, error)
}

// Open loads the programs, for links of ns; nil is the calling thread's. What the
// kernel cannot do is a probe.NotSupportedError.
func Open(ns *os.File, mark uint32) (g *Guards, err error) {
	g = &Guards{
		egress:  program{name: "isle_guard", egress: true},
		ingress: program{name: "isle_inside"},
		port:    program{name: "isle_port"},
		at:      clsact{},
	}
	if knowsTCX() {
		g.at = tcx{ns}
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
	if err := g.attach(c, g.egress, index); err != nil {
		return err
	}
	if internal {
		return g.attach(c, g.ingress, index)
	}
	return g.detach(c, g.ingress, index)
}

// SetPort puts a guard on the link of a container.
func (g *Guards) SetPort(c *rtnl.Conn, index int32) error { return g.attach(c, g.port, index) }

// DeletePort takes it off again.
func (g *Guards) DeletePort(c *rtnl.Conn, index int32) error { return g.detach(c, g.port, index) }

// GetPort reports whether it is there.
func (g *Guards) GetPort(c *rtnl.Conn, index int32) (bool, error) {
	return g.at.attached(c, g.port, index)
}

// Delete takes the guards off a link.
func (g *Guards) Delete(c *rtnl.Conn, index int32) error {
	return errors.Join(g.detach(c, g.egress, index), g.detach(c, g.ingress, index))
}

// Get reports which guards are on a link.
func (g *Guards) Get(c *rtnl.Conn, index int32) (guarded, internal bool, err error) {
	if guarded, err = g.at.attached(c, g.egress, index); err != nil {
		return false, false, err
	}
	internal, err = g.at.attached(c, g.ingress, index)
	return guarded, internal, err
}

func (g *Guards) attach(c *rtnl.Conn, p program, index int32) error {
	if err := g.at.attach(c, p, index); err != nil {
		return fmt.Errorf("attach eBPF program %s: %w", p.name, err)
	}
	return nil
}

func (g *Guards) detach(c *rtnl.Conn, p program, index int32) error {
	if err := g.at.detach(c, p, index); err != nil {
		return fmt.Errorf("detach eBPF program %s: %w", p.name, err)
	}
	return nil
}
