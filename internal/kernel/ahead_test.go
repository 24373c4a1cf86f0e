package kernel

import (
	"os"
	"strings"
	"testing"

	"isle/internal/netspec"
)

// TestPrepare: a namespace that was made ahead is the one that is named, and of one
// that nobody took nothing is left.
func TestPrepare(t *testing.T) {
	m := newMachine(t)
	before := namespacesHeld(t)
	drop := m.Prepare()
	next := m.ahead.next.Load()
	m.Prepare()() // one is enough
	if m.ahead.next.Load() != next {
		t.Fatal("it was let go by who did not make it")
	}
	ns := state(netspec.Namespace{NS: "c"})
	m.apply(ns)
	<-next.done
	if got, err := m.ns.Cookie("c"); err != nil || got != next.ns.Cookie {
		t.Errorf("cookie %d, %v: it was not the one made ahead", got, err)
	}
	drop()
	m.remove(ns)
	m.Prepare()()
	if after := namespacesHeld(t); after != before {
		t.Errorf("%d namespaces are held, before %d", after, before)
	}
}

// namespacesHeld counts this process's descriptors of network namespaces.
func namespacesHeld(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, "net:[") {
			n++
		}
	}
	return n
}
