package directory_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
)

// TestMalformed: records that nobody can read are ignored and reported, and do no harm
// to the others.
func TestMalformed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	bad := map[string]string{
		"fabric/host/x":       `{"ID":"y","Name":"n","Addr":"192.0.2.1"}`,
		"fabric/host/noaddr":  `{"ID":"noaddr","Name":"n"}`,
		"fabric/host/badkey":  `{"ID":"badkey","Name":"n","Addr":"192.0.2.1","Key":"AAAA"}`,
		"fabric/network/x":    `{`,
		"fabric/network/y":    `{"ID":"y","Name":"y","VNI":16777216}`,
		"fabric/network/z":    `{"ID":"z","Name":"z","VNI":5,"Record":{"Pools":[{"Subnet":"banana"}]}}`,
		"fabric/endpoint/a":   `[]`,
		"fabric/endpoint/b":   `{"ID":"b","Network":"n","Host":"h","Addrs":["10.0.0.1/24"],"MAC":[1,0,0,0,0,0]}`,
		"fabric/endpoint/c":   `{"ID":"c","Network":"n","Host":"h","Addrs":["224.0.0.1/24"],"MAC":[2,0,0,0,0,0]}`,
		"fabric/endpoint/d":   `{"ID":"d","Network":"n","Host":"h","Addrs":[""],"MAC":[2,0,0,0,0,0]}`,
		"fabric/endpoint/e":   `{"ID":"e","Network":"../n","Host":"h","Addrs":["10.0.0.1/24"],"MAC":[2,0,0,0,0,0]}`,
		"fabric/endpoint/f":   strings.Repeat(" ", 300<<10) + `{}`,
		"fabric/endpoint/":    `{}`,
		"fabric/nonsense/x":   `{}`,
		"fabric/":             ``,
		"fabric/endpoint/g/h": "\x00\xff",
	}
	for k, v := range bad {
		_, err := l.client.Put(t.Context(), prefix+k, v)
		if err != nil {
			t.Fatal(err)
		}
	}
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	a.eventually("the good network", func(v fabric.View) bool { return len(v.Networks) == 1 })
	if v := a.View(); len(v.Hosts) != 1 || len(v.Endpoints) != 0 {
		t.Errorf("%+v", v)
	}
	faults := a.Faults()
	for k := range bad {
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, k+": ") }) {
			t.Errorf("%s is not reported", k)
		}
	}
	testMended(t, l, a)
}

// testMended: what is mended is not reported any more; what was good and becomes bad is
// gone.
func testMended(t *testing.T, l *lab, a *host) {
	put := func(k, v string) {
		_, err := l.client.Put(t.Context(), prefix+k, v)
		a.must(err)
	}
	put("fabric/network/x", `{"ID":"x","Name":"x","VNI":5}`)
	a.eventually("the mended network", func(v fabric.View) bool { return v.Networks["x"].VNI == 5 })
	if slices.ContainsFunc(a.Faults(), func(f string) bool { return strings.HasPrefix(f, "fabric/network/x:") }) {
		t.Error("what is mended is still reported")
	}
	put("fabric/network/x", `{}`)
	a.eventually("that it is bad", func(v fabric.View) bool { _, ok := v.Networks["x"]; return !ok })
}

// TestStoreGone: while the store is away all that was known stays, and changes are
// refused in bounded time; afterwards everything works, and what had been refused is not
// there.
func TestStoreGone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	_, err = a.connect("e1", "one", "10.1.0.0/24")
	a.must(err)
	a.eventually("the endpoint", func(v fabric.View) bool { return len(v.Endpoints) == 1 })
	before := a.View()
	l.etcd.Crash()
	var wg sync.WaitGroup
	for _, change := range []func() error{
		func() error { _, err := a.connect("e2", "one", "10.1.0.0/24"); return err },
		func() error { _, err := a.network("two", "10.2.0.0/24"); return err },
		func() error { return a.Disconnect(t.Context(), "e1") },
		func() error { return a.RemoveNetwork(t.Context(), "n-one") },
	} {
		wg.Go(func() {
			if err := change(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "hint: ") {
				t.Errorf("%v, want class Unavailable and a hint", err)
			}
		})
	}
	wg.Wait()
	if v := a.View(); !v.Known || len(v.Endpoints) != len(before.Endpoints) || len(v.Networks) != 1 {
		t.Errorf("%+v", v)
	}
	l.etcd.Resume(t)
	_, err = a.connect("e3", "one", "10.1.0.0/24")
	a.must(err)
	a.eventually("only what was not refused", func(v fabric.View) bool {
		_, refused := v.Endpoints["e2"]
		return v.Endpoints["e3"].ID != "" && !refused && len(v.Networks) == 1
	})
}

// TestCancelled: who gives up gets their own error, and the change is taken back.
func TestCancelled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.RemoveNetwork(ctx, "x"); !errors.Is(err, context.Canceled) || errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}

// TestSlowReader: who does not read is told to begin anew, and what was given out is not
// changed.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	a.eventually("the network", func(v fabric.View) bool { return len(v.Networks) == 1 })
	old := a.View()
	hold, seen := make(chan struct{}), make(chan fabric.Change, 8192)
	joined := make(chan struct{}, 8192)
	go a.Watch(t.Context(), func(c fabric.Change) { joined <- struct{}{}; <-hold; seen <- c })
	<-joined
	for i := range 4200 {
		a.Feed(int64(1e6+i), "fabric/network/n-one", `{"ID":"n-one","Name":"one","VNI":7}`)
	}
	if old.Networks["n-one"].VNI != 100 || a.View().Networks["n-one"].VNI != 7 {
		t.Error("a view was changed after it was given out, or the new one is not new")
	}
	close(hold)
	if c := <-seen; !c.Reset {
		t.Error("the first change is no reset")
	}
	select {
	case c := <-seen:
		if n := c.Networks["n-one"]; c.Reset || n == nil || n.VNI != 7 || c.Revision != 1e6+4199 {
			t.Errorf("what came meanwhile is %+v", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing came")
	}
	if len(seen) > 0 {
		t.Errorf("%d changes more came: it was to be one", len(seen))
	}
}

// TestDoubt: a change of which it was open whether it was done is taken back.
func TestDoubt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	_, err = a.connect("e1", "one", "10.1.0.5/24")
	a.must(err)
	a.eventually("the endpoint", func(v fabric.View) bool { return len(v.Endpoints) == 1 })
	a.Doubt("e1")
	a.eventually("that it was taken back", func(v fabric.View) bool { return len(v.Endpoints) == 0 })
	_, err = a.connect("e2", "one", "10.1.0.5/24")
	a.must(err)
}
