package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// linked is an image in which one path is a link to the host.
func (w *world) linked(path, to string) string {
	dir, err := os.MkdirTemp(w.dir, "linked")
	w.must(err)
	w.must(os.CopyFS(dir, os.DirFS(w.image())))
	w.must(os.RemoveAll(filepath.Join(dir, path)))
	w.must(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755))
	w.must(os.Symlink(to, filepath.Join(dir, path)))
	return dir
}

// CVE-2026-41579 and its class: whatever in an image is a link to the host,
// nothing is mounted, made or changed there. The container may run or not.
func TestCVE_2026_41579(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		for _, path := range []string{"dev", "dev/pts", "proc", "sys", "data", "data/deep", "etc/hosts"} {
			host := t.TempDir()
			for _, to := range []string{host, host + "/absent", "../../../../../../../../../.." + host, path} {
				w.must(os.WriteFile(filepath.Join(host, "mine"), []byte("as it was"), 0o600))
				img, file := w.linked(path, to), filepath.Join(t.TempDir(), "file")
				w.must(os.WriteFile(file, nil, 0o600))
				id, err := w.tryCreate(box{args: []string{"/bin/true"},
					req: func(c *Create) { c.Rootfs[0].Source = img },
					edit: func(s *specs.Spec) {
						s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data/deep", Type: "tmpfs", Source: "tmpfs"},
							specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: file, Options: []string{"bind"}})
						s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
					}})
				if err == nil {
					w.must(w.c.Start(w.ctx, id))
					w.exit(Proc{ID: id})
				}
				w.untouched(t, host, path+" -> "+strings.ReplaceAll(to, host, "HOST"))
				w.must(os.RemoveAll(img))
			}
		}
	})
}

func (w *world) untouched(t *testing.T, host, what string) {
	t.Helper()
	entries, err := os.ReadDir(host)
	w.must(err)
	if b, err := os.ReadFile(filepath.Join(host, "mine")); len(entries) != 1 || err != nil || string(b) != "as it was" {
		t.Errorf("%s: on the host there is now %v (%q, %v)", what, entries, b, err)
	}
	if table := mountTable(t, "self"); strings.Contains(table, host) {
		t.Errorf("%s: mounted on the host:\n%s", what, table)
	}
}
