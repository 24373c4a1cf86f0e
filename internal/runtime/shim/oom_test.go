package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOOMOfAScope: the group is gone when the exit is looked at; what was seen
// before counts, for a process that was killed.
func TestOOMOfAScope(t *testing.T) {
	for name, c := range map[string]struct {
		events string
		code   int
		want   bool
	}{
		"killed":            {"low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n", 137, true},
		"kill not yet told": {"low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n", 137, true},
		"ended otherwise":   {"low 0\noom 1\noom_kill 1\n", 3, false},
		"only near it":      {"low 0\nhigh 7\nmax 9\noom 0\noom_kill 0\n", 137, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "memory.events")
			if err := os.WriteFile(file, []byte("oom 0\noom_kill 0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w := watchOOM(dir)
			if err := os.WriteFile(file, []byte(c.events), 0o644); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(2 * time.Second); c.want && !w.seen.Load() && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			os.RemoveAll(dir)
			if got := w.stop(c.code); got != c.want {
				t.Errorf("out of memory: %v, want %v", got, c.want)
			}
		})
	}
	if watchOOM(t.TempDir()).stop(137) || (*oomWatch)(nil).stop(137) {
		t.Error("a group without memory.events ran out of memory")
	}
}
