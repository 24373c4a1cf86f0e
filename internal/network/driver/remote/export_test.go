package remote

import "context"

// LookUp activates a plugin for networks.
func (r *Registry) LookUp(ctx context.Context, name string) error {
	return r.lookUp(ctx, name, kindNetwork)
}

// LookUpIPAM activates one for addresses.
func (r *Registry) LookUpIPAM(ctx context.Context, name string) error {
	return r.lookUp(ctx, name, kindIPAM)
}

func (r *Registry) lookUp(ctx context.Context, name, kind string) error {
	p := r.plugin(name)
	_, err := p.reach(ctx, p.begin(false), kind)
	return err
}

// Nodes is how many hosts are known.
func (r *Registry) Nodes() int { return len(r.nodes.get()) }
