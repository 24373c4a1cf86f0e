package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
)

// maxAccounts bounds passwd and group: they are the image's, and are read by
// a privileged process.
const maxAccounts = 4 << 20

// ResolveUser finds who "name|uid[:group|gid]" and the additional groups are
// in a container's own /etc/passwd and /etc/group. root must not follow links
// out of the container (rootfs.View). Numbers need no entry. The error is of
// class InvalidArgument.
func ResolveUser(root fs.FS, name string, groups []string) (User, error) {
	passwd, err := readAccounts(root, "etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := readAccounts(root, "etc/group")
	if err != nil {
		return User{}, err
	}
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return User{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	extra, err := user.GetAdditionalGroups(groups, bytes.NewReader(group))
	if err != nil {
		return User{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return newUser(u, extra), nil
}

// newUser has the primary group among the additional ones, so that a program
// which drops the former does not lose what it could not do (CVE-2022-36109).
func newUser(u *user.ExecUser, extra []int) User {
	out := User{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	seen := map[uint32]bool{}
	for _, list := range [][]int{{u.Gid}, u.Sgids, extra} {
		for _, g := range list {
			if !seen[uint32(g)] {
				seen[uint32(g)] = true
				out.Groups = append(out.Groups, uint32(g))
			}
		}
	}
	return out
}

func readAccounts(root fs.FS, name string) ([]byte, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the image's /%s: %w", name, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("the image's /%s is not a file: %w", name, errdefs.ErrInvalidArgument))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts+1))
	if err != nil {
		return nil, fmt.Errorf("read the image's /%s: %w", name, err)
	}
	if len(b) > maxAccounts {
		return nil, fmt.Errorf("the image's /%s is larger than %d bytes: %w", name, maxAccounts, errdefs.ErrInvalidArgument)
	}
	return b, nil
}
