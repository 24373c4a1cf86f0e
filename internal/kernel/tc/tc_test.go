package tc

import (
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/rtnl"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestSet : what was set is found again, by another set of programs too, and
// taken away.
func TestSet(t *testing.T) {
	ns := kerneltest.NewNS(t)
	ns.IP("link add isle0 type bridge\nlink set isle0 up")
	c, err := rtnl.Open(ns.File)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	index, err := c.Index("isle0")
	if err != nil {
		t.Fatal(err)
	}
	g := open(t, 1<<27)
	want := func(g *Guards, guarded, internal bool) {
		t.Helper()
		a, b, err := g.Get(c, index)
		if err != nil || a != guarded || b != internal {
			t.Errorf("guarded %v, internal %v, %v; want %v, %v", a, b, err, guarded, internal)
		}
	}
	want(g, false, false)
	for _, internal := range []bool{false, true, true, false} {
		if err := g.Set(c, index, internal); err != nil {
			t.Fatal(err)
		}
		want(g, true, internal)
	}
	want(open(t, 1<<27), true, false)
	want(open(t, 1<<26), false, false)
	for range 2 {
		if err := g.Delete(c, index); err != nil {
			t.Fatal(err)
		}
		want(g, false, false)
	}
	if err := g.Set(c, index+100, true); err == nil {
		t.Error("a link that is not there was guarded")
	}
}

func open(t *testing.T, mark uint32) *Guards {
	t.Helper()
	g, err := Open(mark)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}
