package tc

import (
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestSet : what was set is found again, by another set of programs too, and
// taken away; in either place where a kernel may keep programs.
func TestSet(t *testing.T) {
	t.Run("clsact", func(t *testing.T) { testSet(t, func(kerneltest.NS) places { return clsact{} }) })
	t.Run("tcx", func(t *testing.T) {
		if !knowsTCX() {
			t.Skip(&probe.NotSupportedError{Feature: "TCX", Since: "6.6"})
		}
		testSet(t, func(ns kerneltest.NS) places { return tcx{ns.File} })
	})
}

func testSet(t *testing.T, at func(kerneltest.NS) places) {
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
	open := func(mark uint32) *Guards {
		g, err := Open(ns.File, mark)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		g.at = at(ns)
		return g
	}
	g := open(1 << 27)
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
	want(open(1<<27), true, false)
	other := open(1 << 26)
	want(other, false, false)
	if err := other.Set(c, index, false); err != nil { // as an upgrade does
		t.Fatal(err)
	}
	want(other, true, false)
	want(g, false, false)
	if err := g.Set(c, index, false); err != nil {
		t.Fatal(err)
	}
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
