package cni

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
)

// noted is an attachment that may be there. It is written down before ADD, since libcni
// remembers only what ADD has finished.
type noted struct{ Container, Interface, NetNS string }

func (n noted) conf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: n.Container, IfName: n.Interface, NetNS: n.NetNS, Args: cniArgs}
}

func (s *shelf) notes(id string) string { return filepath.Join(s.place(id), "attached") }

func (s *shelf) note(id string, rt *libcni.RuntimeConf) string {
	return filepath.Join(s.notes(id), url.PathEscape(rt.ContainerID+"-"+rt.IfName))
}

// remember notes an attachment.
func (s *shelf) remember(id string, rt *libcni.RuntimeConf) error {
	b, err := json.Marshal(noted{rt.ContainerID, rt.IfName, rt.NetNS})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.notes(id), 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.note(id, rt), b, 0o600)
}

// forget strikes one out. One that is not there is no error.
func (s *shelf) forget(id string, rt *libcni.RuntimeConf) error {
	if err := os.Remove(s.note(id, rt)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// remembered are those of a network. A note that a crash has cut off was of an ADD
// that had not begun.
func (s *shelf) remembered(id string) (out []noted, err error) {
	entries, err := os.ReadDir(s.notes(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		var n noted
		b, err := os.ReadFile(filepath.Join(s.notes(id), e.Name()))
		if err == nil && json.Unmarshal(b, &n) == nil {
			out = append(out, n)
		}
	}
	return out, err
}
