// Package reconcile turns the difference between two states into ordered steps.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"isle/internal/netspec"
)

// Change is one step from have to want. At most one of Old and New is nil.
type Change struct {
	Key      netspec.Key
	Old, New netspec.Object
}

func (c Change) String() string {
	switch {
	case c.Old == nil:
		return fmt.Sprintf("add %v", c.Key)
	case c.New == nil:
		return fmt.Sprintf("delete %v", c.Key)
	}
	return fmt.Sprintf("change %v", c.Key)
}

// Undo is the change that takes c back.
func (c Change) Undo() Change { return Change{c.Key, c.New, c.Old} }

// Diff returns the changes that turn have into want: additions and updates by
// rising rank, then removals by falling rank, so that nothing is ever removed
// before its replacement is there.
func Diff(have, want netspec.State) []Change {
	var put, del []Change
	for k, o := range want {
		if old, ok := have[k]; !ok || old != o {
			put = append(put, Change{k, old, o})
		}
	}
	for k, o := range have {
		if _, ok := want[k]; !ok {
			del = append(del, Change{k, o, nil})
		}
	}
	slices.SortFunc(put, inOrder)
	slices.SortFunc(del, func(a, b Change) int { return inOrder(b, a) })
	return append(put, del...)
}

// inOrder is the order of making: bridges before their ports, whatever their names.
func inOrder(a, b Change) int {
	return cmp.Or(cmp.Compare(a.Key.Rank, b.Key.Rank), cmp.Compare(port(a), port(b)), compare(a.Key, b.Key))
}

func port(c Change) int {
	o := c.New
	if o == nil {
		o = c.Old
	}
	switch l := o.(type) {
	case netspec.VXLAN:
		return 1
	case netspec.Link:
		if l.Master != "" {
			return 1
		}
	}
	return 0
}

func compare(a, b netspec.Key) int {
	return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.NS, b.NS), cmp.Compare(a.ID, b.ID))
}

// Kernel is the part of the machine that reconcile works on.
type Kernel interface {
	// Observe returns every object that carries our owner mark.
	Observe(ctx context.Context) (netspec.State, error)
	// Apply makes changes in their order and returns how many of them are in
	// force. It may send several in one message. Each is idempotent: adding
	// what is there and deleting what is not are no errors. When err is not
	// nil, changes[done] is the one that failed and none after it was made.
	Apply(ctx context.Context, changes []Change) (done int, err error)
}

// Sync makes the kernel hold exactly want and returns what it had to change.
func Sync(ctx context.Context, k Kernel, want netspec.State) ([]Change, error) {
	have, err := k.Observe(ctx)
	if err != nil {
		return nil, fmt.Errorf("observe kernel: %w", err)
	}
	changes := Diff(have, want)
	return changes, Apply(ctx, k, changes)
}

// Apply makes changes. When one fails, those already made are taken back in
// reverse and all errors are returned; the taking back goes on when ctx is done.
func Apply(ctx context.Context, k Kernel, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	done, err := k.Apply(ctx, changes)
	if err == nil {
		return nil
	}
	if done < len(changes) {
		err = fmt.Errorf("%v: %w", changes[done], err)
	}
	if uerr := takeBack(context.WithoutCancel(ctx), k, changes[:done]); uerr != nil {
		err = errors.Join(err, uerr)
	}
	return err
}

// takeBack undoes changes one by one: one that fails must not keep the others.
func takeBack(ctx context.Context, k Kernel, changes []Change) (err error) {
	for _, c := range slices.Backward(changes) {
		if _, uerr := k.Apply(ctx, []Change{c.Undo()}); uerr != nil {
			err = errors.Join(err, fmt.Errorf("undo %v: %w", c, uerr))
		}
	}
	return err
}

// Dump is s as text, one object a line, in order: for tests and for people.
func Dump(s netspec.State) string {
	var b []byte
	for _, k := range slices.SortedFunc(maps.Keys(s), compare) {
		b = fmt.Appendf(b, "%T%+v\n", s[k], s[k])
	}
	return string(b)
}
