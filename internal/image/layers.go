package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// unixStat is what a FileInfo has inside.
type unixStat = syscall.Stat_t

// layers are directories laid over one another, topmost first, looked at the
// way overlayfs does. Symbolic links are never followed.
type layers []string

// lookup finds what p is in the merged view.
func (l layers) lookup(p string) (fs.FileInfo, bool) {
	for _, dir := range l {
		fi, hides := lookIn(dir, p)
		if fi != nil {
			return fi, true
		}
		if hides {
			return nil, false
		}
	}
	return nil, false
}

// lookIn finds p in one layer. hides: the layers below do not show it either.
func lookIn(dir, p string) (fi fs.FileInfo, hides bool) {
	at := dir
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i, part := range parts {
		at = filepath.Join(at, part)
		st, err := os.Lstat(at)
		if err != nil {
			return nil, hides
		}
		last := i == len(parts)-1
		switch {
		case whiteout(st), !last && !st.IsDir():
			return nil, true
		case last:
			return st, true
		}
		hides = hides || opaque(at)
	}
	return nil, hides
}

// names are the entries of a directory of the merged view.
func (l layers) names(p string) []string {
	seen := map[string]bool{} // to whether it is there
	for _, dir := range l {
		fi, hides := lookIn(dir, p)
		if fi == nil && hides || fi != nil && !fi.IsDir() {
			break
		}
		if fi == nil {
			continue
		}
		at := filepath.Join(dir, p)
		entries, err := os.ReadDir(at)
		if err != nil {
			break
		}
		for _, e := range entries {
			if _, known := seen[e.Name()]; known {
				continue
			}
			info, err := e.Info()
			seen[e.Name()] = err == nil && !whiteout(info)
		}
		if opaque(at) || ancestorOpaque(dir, p) {
			break
		}
	}
	var out []string
	for name, there := range seen {
		if there {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func ancestorOpaque(dir, p string) bool {
	for d := filepath.Dir(p); d != "/" && d != "."; d = filepath.Dir(d) {
		if opaque(filepath.Join(dir, d)) {
			return true
		}
	}
	return false
}
