package runtime

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// noChmod refuses one system call, so that a filter shows.
func noChmod(s *specs.Spec) {
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"chmod", "fchmodat"}, Action: specs.ActErrno}}}
}

// TestFilterIsKept runs containers with one profile: the filter holds in each,
// whether it was compiled, kept, or the kept one is rubbish.
func TestFilterIsKept(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		rt, err := w.c.Find("")
		w.must(err)
		var key string
		refused := func(want bool) {
			t.Helper()
			annotated := false
			id := w.create(box{args: []string{"/bin/busybox", "chmod", "700", "/tmp"},
				edit: func(s *specs.Spec) {
					noChmod(s)
					key = w.c.Filter(rt, s)
					annotated = s.Annotations[filterAnnotation] != ""
				},
				req: func(r *Create) { r.Filter = key }})
			w.must(w.c.Start(w.ctx, id))
			if e := w.exit(Proc{ID: id}); e.Code != 1 {
				t.Errorf("chmod ended with %d: the filter did not hold", e.Code)
			}
			w.must(w.c.Delete(w.ctx, id))
			if annotated != want {
				t.Errorf("a kept filter was used: %v, want %v", annotated, want)
			}
		}
		crun := rt.Name == "crun"
		refused(false)
		refused(crun)
		if !crun {
			if key != "" {
				t.Errorf("%s keeps filter %q", rt.Name, key)
			}
			return
		}
		w.must(os.WriteFile(w.c.filterFile(key), []byte("rubbish"), 0o600))
		refused(false)
		refused(true)
	})
}

// TestFilterDependsOnTheProfile is about the key: another profile, another filter.
func TestFilterDependsOnTheProfile(t *testing.T) {
	w := newWorld(t, "crun")
	rt, err := w.c.Find("")
	w.must(err)
	strict, lax := w.spec("a", box{}), w.spec("b", box{})
	noChmod(strict)
	noChmod(lax)
	lax.Linux.Seccomp.Syscalls = nil
	if a, b := w.c.Filter(rt, strict), w.c.Filter(rt, lax); a == b || a == "" {
		t.Errorf("keys %q and %q", a, b)
	}
	if key := w.c.Filter(rt, w.spec("c", box{})); key != "" {
		t.Errorf("no profile has key %q", key)
	}
}

func TestIsFilter(t *testing.T) {
	ret := []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}
	for name, c := range map[string]struct {
		program []byte
		want    bool
	}{
		"nothing":          {nil, false},
		"a return":         {ret, true},
		"half a return":    {ret[:4], false},
		"no return at end": {append(append([]byte{}, ret...), make([]byte, 8)...), false},
		"too long":         {append(make([]byte, maxFilter), ret...), false},
	} {
		if got := isFilter(c.program); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
