package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	cfs "github.com/containerd/continuity/fs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"isle/internal/ids"
)

// Changes lists what differs between a container's layer and its image.
func (s *Service) Changes(ctx context.Context, id string) ([]Change, error) {
	var out []Change
	kinds := map[cfs.ChangeKind]container.ChangeType{
		cfs.ChangeKindAdd: container.ChangeAdd, cfs.ChangeKindModify: container.ChangeModify, cfs.ChangeKindDelete: container.ChangeDelete,
	}
	_, err := s.eachChange(s.context(ctx), id, func(string) cfs.ChangeFunc {
		return func(k cfs.ChangeKind, p string, _ os.FileInfo, err error) error {
			if kind, ok := kinds[k]; ok && err == nil {
				out = append(out, Change{Kind: kind, Path: p})
			}
			return err
		}
	})
	return withParents(out), err
}

// withParents adds the directories that a change is in as changed, too: with
// overlay they are copied up, and people expect to see them with any driver.
func withParents(in []Change) []Change {
	seen := map[string]bool{"/": true, ".": true}
	for _, c := range in {
		seen[c.Path] = true
	}
	for _, c := range in {
		for d := filepath.Dir(c.Path); !seen[d]; d = filepath.Dir(d) {
			seen[d] = true
			in = append(in, Change{Kind: container.ChangeModify, Path: d})
		}
	}
	slices.SortFunc(in, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return in
}

// writeDiff writes a container's layer as a tar archive and says how many
// entries differ from the image.
func (s *Service) writeDiff(ctx context.Context, id string, w io.Writer) (n int, err error) {
	var cw *archive.ChangeWriter
	n, err = s.eachChange(ctx, id, func(root string) cfs.ChangeFunc {
		cw = archive.NewChangeWriter(w, root)
		return cw.HandleChange
	})
	if err != nil {
		return n, err
	}
	return n, cw.Close()
}

// eachChange walks the layer of a container. start gets the directory in which
// the changed files are and returns what to call for each.
func (s *Service) eachChange(ctx context.Context, id string, start func(root string) cfs.ChangeFunc) (n int, err error) {
	r, err := s.rootfs(id)
	if err != nil {
		return 0, err
	}
	walk := s.overlayChanges
	if !s.storage.overlay() {
		walk = s.nativeChanges
	}
	err = walk(ctx, id, r, func(root string) cfs.ChangeFunc {
		fn := start(root)
		return func(k cfs.ChangeKind, p string, fi os.FileInfo, err error) error {
			n++
			return fn(k, p, fi, err)
		}
	})
	if err != nil {
		return n, fmt.Errorf("changes of %s: %w", ids.Short(id), err)
	}
	return n, nil
}

func (s *Service) nativeChanges(ctx context.Context, id string, r rootfsRecord, start func(string) cfs.ChangeFunc) error {
	upper, err := s.snap.Mounts(ctx, nativeKey(id))
	if err != nil {
		return err
	}
	key := "changes-" + id
	lower, err := s.snap.View(ctx, key, string(r.ChainID))
	if err != nil {
		return err
	}
	defer s.snap.Remove(context.WithoutCancel(ctx), key)
	dir := func(m []mount.Mount) string { return m[0].Source }
	fn := start(dir(upper))
	return cfs.Changes(ctx, dir(lower), dir(upper), func(k cfs.ChangeKind, p string, fi os.FileInfo, err error) error {
		if err == nil && k == cfs.ChangeKindAdd && runtimeMade(p, fi, dir(upper)) {
			return nil
		}
		return fn(k, p, fi, err)
	})
}

// overlayChanges reads an upper directory as overlayfs does: whiteouts are
// character devices 0:0, and an opaque directory hides all below it.
func (s *Service) overlayChanges(ctx context.Context, id string, r rootfsRecord, start func(string) cfs.ChangeFunc) error {
	upper := filepath.Join(s.rootfsDir(id), "upper")
	u := upperWalk{upper: upper, lower: r.Lower, fn: start(upper)}
	return filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a running container removed it
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, upper)
		if rel == "" {
			return nil
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return u.visit(rel, fi)
	})
}

type upperWalk struct {
	upper string
	lower layers
	fn    cfs.ChangeFunc
}

func (u upperWalk) visit(p string, fi fs.FileInfo) error {
	if whiteout(fi) {
		return u.fn(cfs.ChangeKindDelete, p, nil, nil)
	}
	var kind cfs.ChangeKind = cfs.ChangeKindAdd
	if _, ok := u.lower.lookup(p); ok {
		kind = cfs.ChangeKindModify
	}
	at := filepath.Join(u.upper, p)
	switch {
	case kind == cfs.ChangeKindAdd && runtimeMade(p, fi, u.upper):
		if fi.IsDir() {
			return fs.SkipDir
		}
		return nil
	case kind == cfs.ChangeKindModify && fi.IsDir() && u.onlyRuntime(p):
		return nil
	}
	if err := u.fn(kind, p, fi, nil); err != nil {
		return err
	}
	if fi.IsDir() && opaque(at) {
		return u.hidden(p)
	}
	return nil
}

// hidden reports what an opaque directory no longer shows of those below it.
func (u upperWalk) hidden(p string) error {
	for _, name := range u.lower.names(p) {
		child := filepath.Join(p, name)
		if _, err := os.Lstat(filepath.Join(u.upper, child)); err == nil {
			continue
		}
		if err := u.fn(cfs.ChangeKindDelete, child, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// mountPoints are what an OCI runtime makes in the layer to mount things on.
// Docker has them in a layer of their own, so that nobody sees them.
var mountPoints = []string{
	"/.dockerenv", "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm",
	"/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys",
}

// runtimeMade reports whether p is such a thing and has remained empty.
func runtimeMade(p string, fi fs.FileInfo, root string) bool {
	if !slices.Contains(mountPoints, p) {
		return false
	}
	if !fi.IsDir() {
		return fi.Size() == 0
	}
	entries, err := os.ReadDir(filepath.Join(root, p))
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		child, err := e.Info()
		return err != nil || !runtimeMade(filepath.Join(p, e.Name()), child, root)
	})
}

// onlyRuntime reports whether a directory was copied up for mount points alone.
func (u upperWalk) onlyRuntime(p string) bool {
	entries, err := os.ReadDir(filepath.Join(u.upper, p))
	if err != nil || len(entries) == 0 {
		return false
	}
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		child, err := e.Info()
		at := filepath.Join(p, e.Name())
		_, below := u.lower.lookup(at)
		return err != nil || below || whiteout(child) || !runtimeMade(at, child, u.upper)
	})
}

func whiteout(fi fs.FileInfo) bool {
	if fi.Mode()&fs.ModeCharDevice == 0 {
		return false
	}
	st, ok := fi.Sys().(*unixStat)
	return ok && st.Rdev == 0
}

func opaque(dir string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(dir, "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}
