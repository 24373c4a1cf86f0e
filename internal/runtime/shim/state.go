package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"isle/internal/runtime/shim/wire"
)

// saved is what the next shim must know of a process: a file each, below the
// container's directory.
type saved struct {
	Proc    wire.Proc
	Create  *wire.Create `json:",omitempty"` // for a container's first process
	Stdio   wire.Stdio
	Pid     int    // 0: its making was not completed
	Start   uint64 // see startTime
	Started bool
	Ended   bool // its exit was published
	Pipes   [3]uint64
}

// names are container and exec ids: they become names of files and sockets.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkName(kind, id string) error {
	if !names.MatchString(id) {
		return wire.Errorf(wire.Invalid, "%s id %q: want letters, digits, '_', '.' and '-'", kind, id)
	}
	return nil
}

func checkProc(p wire.Proc) error {
	if err := checkName("container", p.ID); err != nil || p.Exec == "" {
		return err
	}
	return checkName("exec", p.Exec)
}

// writeJSON replaces a file in one step.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (s *Server) containerDir(id string) string {
	return filepath.Join(s.dir, "containers", id)
}

func (s *Server) stateFile(p wire.Proc) string {
	if p.Exec == "" {
		return filepath.Join(s.containerDir(p.ID), "container.json")
	}
	return filepath.Join(s.containerDir(p.ID), "exec-"+p.Exec+".json")
}

// save keeps a process's state as it is now, unless its container is gone
// meanwhile. A short command ends while its start is still being kept: the
// later of two never writes the older state.
func (s *Server) save(p *process) error {
	p.file.Lock()
	defer p.file.Unlock()
	err := writeJSON(s.stateFile(p.id), p.snapshot())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readSaved(path string) (saved, error) {
	var v saved
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("state %s: %w", path, err)
	}
	return v, nil
}
