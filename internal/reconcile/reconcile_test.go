package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

func state(objs ...netspec.Object) netspec.State {
	s := netspec.State{}
	s.Add(objs...)
	return s
}

var (
	ns    = netspec.Namespace{NS: "c1"}
	br    = netspec.Link{Name: "br", Kind: netspec.Bridge}
	veth  = netspec.Link{Name: "v1", Kind: netspec.Veth, Master: "br", PeerNS: "c1", Peer: "eth0"}
	dns   = netspec.DNSRedirect{NS: "c1", Port: 1}
	sysc  = netspec.Sysctl{NS: "c1", Name: "a", Value: "1"}
	bigBr = netspec.Link{Name: "br", Kind: netspec.Bridge, MTU: 9000}
)

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want netspec.State
		text       string
	}{
		{"nothing", nil, nil, ""},
		{"same", state(br, ns), state(ns, br), ""},
		{"made from below", nil, state(dns, veth, sysc, br, ns), "add namespace  in c1; add link br; add link v1; add sysctl a in c1; add filter dns in c1"},
		{"removed from above", state(dns, veth, sysc, br, ns), nil, "delete filter dns in c1; delete sysctl a in c1; delete link v1; delete link br; delete namespace  in c1"},
		{"ports after their bridges, whatever the names", nil, state(netspec.Link{Name: "z"}, netspec.Link{Name: "a", Master: "z"}), "add link z; add link a"},
		{"replacement before removal", state(br, sysc), state(bigBr, ns), "add namespace  in c1; change link br; delete sysctl a in c1"},
	} {
		var got []string
		for _, ch := range reconcile.Diff(c.have, c.want) {
			got = append(got, ch.String())
		}
		if text := strings.Join(got, "; "); text != c.text {
			t.Errorf("%s: %s, want %s", c.name, text, c.text)
		}
	}
}

func TestUndo(t *testing.T) {
	for _, c := range reconcile.Diff(state(br, sysc), state(bigBr, ns)) {
		u := c.Undo()
		if u.Key != c.Key || u.Old != c.New || u.New != c.Old || u.Undo() != c {
			t.Errorf("undo of %v is %v", c, u)
		}
	}
}

// random draws a state without references, so that every subset can be made.
func random(t *rapid.T, label string) netspec.State {
	s := netspec.State{}
	for range rapid.IntRange(0, 8).Draw(t, label) {
		n, v := rapid.IntRange(0, 5).Draw(t, "name"), rapid.IntRange(0, 2).Draw(t, "version")
		o := rapid.SampledFrom([]netspec.Object{
			netspec.Link{Name: fmt.Sprint("l", n), Kind: netspec.Bridge, MTU: v}, netspec.Sysctl{Name: fmt.Sprint(n), Value: fmt.Sprint(v)},
			netspec.Namespace{NS: netspec.NS(fmt.Sprint("n", n))}, netspec.Loopback{HostPort: uint16(n), ToPort: uint16(v)},
		}).Draw(t, "object")
		s[o.Key()] = o
	}
	return s
}

// TestSync: the kernel is what was wanted, or, when it refused, what it was.
func TestSync(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := random(t, "have"), random(t, "want")
		k := &kerneltest.Fake{State: maps.Clone(have), FailAt: rapid.IntRange(0, 10).Draw(t, "fail at")}
		changes, err := reconcile.Sync(context.Background(), k, want)
		failed := k.FailAt != 0 && k.FailAt <= len(changes)
		switch {
		case failed != (err != nil):
			t.Fatalf("failed %t, err %v", failed, err)
		case failed && (!k.State.Equal(have) || !errors.Is(err, kerneltest.ErrRefused) || !strings.Contains(err.Error(), changes[k.FailAt-1].String())):
			t.Fatalf("%v\nleft %vwant %v", err, reconcile.Dump(k.State), reconcile.Dump(have))
		case !failed && !k.State.Equal(want):
			t.Fatalf("made %vwant %v", reconcile.Dump(k.State), reconcile.Dump(want))
		}
		if again, err := reconcile.Sync(context.Background(), &kerneltest.Fake{State: maps.Clone(want)}, want); err != nil || len(again) != 0 {
			t.Fatalf("syncing what is there: %v, %v", again, err)
		}
	})
}

// broken fails at one change and then at every undo of another.
type broken struct {
	kerneltest.Fake
	fail, stuck netspec.Key
	seen        []string
}

func (b *broken) Apply(ctx context.Context, cs []reconcile.Change) (int, error) {
	for i, c := range cs {
		undo := len(b.seen) > 0 && len(cs) == 1
		if c.Key == b.fail && !undo || c.Key == b.stuck && undo {
			b.seen = append(b.seen, "!"+c.String())
			return i, errors.New("no")
		}
		b.seen = append(b.seen, c.String())
		if err := ctx.Err(); err != nil {
			return i, err
		}
	}
	return len(cs), nil
}

// TestUndoGoesOn: one step that cannot be taken back does not keep the others,
// all errors are told, and a caller that has gone changes nothing.
func TestUndoGoesOn(t *testing.T) {
	b := &broken{fail: dns.Key(), stuck: veth.Key()}
	err := reconcile.Apply(t.Context(), b, reconcile.Diff(nil, state(ns, br, veth, dns)))
	want := []string{"add namespace  in c1", "add link br", "add link v1", "!add filter dns in c1", "!delete link v1", "delete link br", "delete namespace  in c1"}
	if !slices.Equal(b.seen, want) {
		t.Errorf("steps %q", b.seen)
	}
	if err == nil || !strings.Contains(err.Error(), "add filter dns in c1: no") || !strings.Contains(err.Error(), "undo add link v1: no") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := &kerneltest.Fake{FailAt: 2}
	if err := reconcile.Apply(ctx, k, reconcile.Diff(nil, state(ns, br))); err == nil || len(k.State) != 0 {
		t.Errorf("%v, left %v", err, k.State)
	}
}

func TestDump(t *testing.T) {
	got := reconcile.Dump(state(dns, ns))
	if want := "netspec.Namespace{NS:c1}\nnetspec.DNSRedirect{NS:c1 Port:1}\n"; got != want {
		t.Errorf("%q", got)
	}
}
