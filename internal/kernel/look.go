package kernel

import (
	"context"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

var _ reconcile.Looker = (*Kernel)(nil)

// ObserveSome implements reconcile.Looker. It costs a few dumps of the host's
// namespace, however many containers there are, and one visit to each namespace
// that is asked for.
func (k *Kernel) ObserveSome(ctx context.Context, scope reconcile.Scope) (netspec.State, func(netspec.Object) bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s := netspec.State{}
	if scope.Filter {
		if err := k.readTable(s); err != nil {
			return nil, nil, err
		}
	}
	names := make([]string, len(scope.Namespaces))
	for i, ns := range scope.Namespaces {
		names[i] = string(ns)
	}
	peers, err := k.readNamespaces(ctx, s, names)
	if err != nil {
		return nil, nil, err
	}
	if !scope.Host {
		return s, covers(scope), nil
	}
	return k.lookAtHost(ctx, scope, s, peers)
}

// lookAtHost adds the host's namespace to s. Where nobody remembers what is at the
// far end of a veth, the far ends must be looked at.
func (k *Kernel) lookAtHost(ctx context.Context, scope reconcile.Scope, s netspec.State, peers map[int32]rtnl.Peer) (netspec.State, func(netspec.Object) bool, error) {
	unknown, err := k.readHost(s, peers, false)
	if err != nil {
		return nil, nil, err
	}
	if unknown == 0 {
		return s, covers(scope), nil
	}
	s, err = k.observe(ctx)
	return s, func(netspec.Object) bool { return true }, err
}

// covers reports which objects a look at scope shows.
func covers(scope reconcile.Scope) func(netspec.Object) bool {
	visited := map[netspec.NS]bool{"": scope.Host}
	for _, ns := range scope.Namespaces {
		visited[ns] = true
	}
	return func(o netspec.Object) bool {
		switch o.(type) {
		case netspec.Loopback: // in eBPF's maps: nobody takes those away in passing
			return false
		case netspec.DNSRedirect:
			return visited[o.Key().NS]
		case netspec.Guard, netspec.PortGuard:
			return scope.Host
		}
		if isFilter(o.Key().Rank) {
			return scope.Filter
		}
		return visited[o.Key().NS]
	}
}
