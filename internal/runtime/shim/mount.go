package shim

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

var mountFlags = map[string]uintptr{
	"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC,
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
	"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	"rw": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "defaults": 0,
}

// mountRootfs mounts, in order, at target.
func mountRootfs(mounts []wire.Mount, target string) error {
	for _, m := range mounts {
		if err := mountOne(m, target); err != nil {
			return fmt.Errorf("mount root file system %s (%s): %w", m.Source, m.Type, err)
		}
	}
	return nil
}

func mountOne(m wire.Mount, target string) error {
	var flags uintptr
	var data []string
	for _, o := range m.Options {
		if f, ok := mountFlags[o]; ok {
			flags |= f
		} else {
			data = append(data, o)
		}
	}
	options, err := shorten(data)
	if err != nil {
		return err
	}
	if err := unix.Mount(m.Source, target, m.Type, flags, options); err != nil {
		return err
	}
	const ask = unix.MS_BIND | unix.MS_RDONLY
	if flags&ask != ask {
		return nil
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|flags&^unix.MS_REC, "")
}

// shorten joins the options. The kernel takes less than a page of them: an
// image of many layers is mounted from the directory that its layers have in
// common (the working directory is the thread's own).
func shorten(data []string) (string, error) {
	joined := strings.Join(data, ",")
	if len(joined) < os.Getpagesize() {
		return joined, nil
	}
	for i, o := range data {
		lower, ok := strings.CutPrefix(o, "lowerdir=")
		if !ok {
			continue
		}
		layers := strings.Split(lower, ":")
		dir := commonDir(layers)
		if err := unix.Chdir(dir); err != nil {
			return "", fmt.Errorf("enter %s: %w", dir, err)
		}
		for j := range layers {
			layers[j] = strings.TrimPrefix(layers[j], dir+"/")
		}
		data[i] = "lowerdir=" + strings.Join(layers, ":")
	}
	if joined = strings.Join(data, ","); len(joined) >= os.Getpagesize() {
		return "", wire.Errorf(wire.Invalid, "the image has too many layers for one mount")
	}
	return joined, nil
}

func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths {
		for !strings.HasPrefix(p, dir+"/") && dir != "/" {
			dir = filepath.Dir(dir)
		}
	}
	return strings.TrimSuffix(dir, "/")
}

// mountPoint finds the mount that path is on.
func mountPoint(mountinfo, path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", err
	}
	defer f.Close()
	best := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		inside := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if inside && len(point) >= len(best) {
			best = point
		}
	}
	if best == "" {
		return "", errors.New("no mount holds " + path)
	}
	return best, nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
