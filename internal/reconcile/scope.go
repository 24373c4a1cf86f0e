package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"isle/internal/netspec"
)

// Scope is a part of the machine.
type Scope struct {
	Filter     bool         // the firewall's table
	Host       bool         // links, addresses, routes and settings of the host's namespace
	Facts      bool         // what plans depend on: the way out, and what others have
	Namespaces []netspec.NS // of containers
	// Lost are single objects that were deleted, by us or by others.
	Lost []netspec.Key
}

// Empty reports whether nothing is in s.
func (s Scope) Empty() bool { return s.Single() && len(s.Lost) == 0 }

// Single reports whether nothing is in s but single objects.
func (s Scope) Single() bool { return !s.Filter && !s.Host && !s.Facts && len(s.Namespaces) == 0 }

// And is what is in s or in t.
func (s Scope) And(t Scope) Scope {
	return Scope{s.Filter || t.Filter, s.Host || t.Host, s.Facts || t.Facts, append(slices.Clip(s.Namespaces), t.Namespaces...), append(slices.Clip(s.Lost), t.Lost...)}
}

// Alarm says that somebody else changed what may be ours, or what plans depend on.
type Alarm struct {
	Scope
	By string // "nft (pid 12)"; "" when nobody knows
}

// And is both alarms in one.
func (a Alarm) And(b Alarm) Alarm {
	if a.By == "" {
		a.By = b.By
	}
	return Alarm{a.Scope.And(b.Scope), a.By}
}

// Looker is a Kernel that can look at a part of the machine, which costs less
// than Observe: the time of a repair hangs on it.
type Looker interface {
	// ObserveSome returns the objects in scope that carry our owner mark. covers
	// reports for which objects the answer speaks: one of those that is not in it
	// is not there. It may speak for more than was asked.
	ObserveSome(ctx context.Context, scope Scope) (have netspec.State, covers func(netspec.Object) bool, err error)
}

// SyncSome is Sync for a part of the machine. Links that lead into namespaces and
// are missing take with them what is inside, so those namespaces are put right
// too.
func SyncSome(ctx context.Context, k Kernel, scope Scope, want netspec.State) ([]Change, error) {
	changes, err := DiffSome(ctx, k, scope, want)
	if into := behind(changes); err == nil && len(into) > 0 {
		scope.Namespaces = append(slices.Clip(scope.Namespaces), into...)
		changes, err = DiffSome(ctx, k, scope, want)
	}
	if err != nil {
		return nil, err
	}
	return changes, Apply(ctx, k, changes)
}

// DiffSome is how a part of the machine differs from want. A Kernel that cannot
// look at a part is looked at as a whole.
func DiffSome(ctx context.Context, k Kernel, scope Scope, want netspec.State) ([]Change, error) {
	l, ok := k.(Looker)
	if !ok {
		have, err := k.Observe(ctx)
		return Diff(have, want), err
	}
	have, covers, err := l.ObserveSome(ctx, scope)
	if err != nil {
		return nil, fmt.Errorf("observe a part of the kernel: %w", err)
	}
	part := maps.Clone(want)
	maps.DeleteFunc(part, func(_ netspec.Key, o netspec.Object) bool { return !covers(o) })
	return Diff(have, part), nil
}

// behind are the namespaces behind links that are to be made.
func behind(changes []Change) (out []netspec.NS) {
	for _, c := range changes {
		if l, ok := c.New.(netspec.Link); ok && c.Old == nil && l.PeerNS != "" {
			out = append(out, l.PeerNS)
		}
	}
	return out
}
