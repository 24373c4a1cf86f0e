package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"isle/internal/runtime/shim/wire"
)

// exits are the ends of processes that isled has not acknowledged, in order.
// Each is also a file, for the shim that comes after this one.
type exits struct {
	dir string

	mu      sync.Mutex
	list    []numbered
	next    uint64
	changed chan struct{} // closed and replaced when list grows
}

type numbered struct {
	n uint64
	e wire.Exit
}

// openExits reads what an earlier shim has left.
func openExits(dir string) (*exits, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for exits: %w", err)
	}
	x := &exits{dir: dir, next: 1, changed: make(chan struct{})}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var e wire.Exit
		if b, err := os.ReadFile(name); err == nil && json.Unmarshal(b, &e) == nil {
			x.list = append(x.list, numbered{e: e})
		}
	}
	slices.SortFunc(x.list, func(a, b numbered) int { return a.e.At.Compare(b.e.At) })
	for i := range x.list {
		x.list[i].n = x.next
		x.next++
	}
	return x, nil
}

func (x *exits) file(p wire.Proc) string {
	return filepath.Join(x.dir, strings.TrimSuffix(p.ID+"+"+p.Exec, "+")+".json")
}

// add publishes an exit. Without its file it is still told, so the error is
// for the log only.
func (x *exits) add(e wire.Exit) error {
	err := writeJSON(x.file(e.Proc), e)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = append(x.list, numbered{x.next, e})
	x.next++
	close(x.changed)
	x.changed = make(chan struct{})
	return err
}

// ack forgets the exits of a process.
func (x *exits) ack(p wire.Proc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = slices.DeleteFunc(x.list, func(n numbered) bool { return n.e.Proc == p })
	os.Remove(x.file(p))
}

// after returns the exits later than n, the number to ask with next time, and
// a channel that is closed when there are more.
func (x *exits) after(n uint64) ([]wire.Exit, uint64, <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []wire.Exit
	for _, e := range x.list {
		if e.n > n {
			list = append(list, e.e)
		}
	}
	return list, x.next - 1, x.changed
}

// of returns the last exit of a process.
func (x *exits) of(p wire.Proc) *wire.Exit {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range slices.Backward(x.list) {
		if e.e.Proc == p {
			return &e.e
		}
	}
	return nil
}

func (x *exits) all() []wire.Exit {
	list, _, _ := x.after(0)
	return list
}
