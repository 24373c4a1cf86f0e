package spec_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/container"
	"isle/internal/runtime/spec"
)

// A read-only directory is read-only with all that is mounted in it. For a
// file crun 1.8 fails when it is asked for that.
func TestReadOnlyBind(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for source, recursive := range map[string]bool{dir: true, file: false} {
		in := plain().input(t)
		in.Host.RecursiveReadOnly = true
		m := container.Mount{}
		m.Type, m.Source, m.Destination = mount.TypeBind, source, "/here"
		in.Mounts = append(in.Mounts, m)
		got, err := spec.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(got.Mounts, func(m specs.Mount) bool { return m.Destination == "/here" })
		opts := got.Mounts[at].Options
		if !slices.Contains(opts, "ro") || slices.Contains(opts, "rro") != recursive {
			t.Errorf("%s: options %v, recursive should be %v", source, opts, recursive)
		}
	}
}
