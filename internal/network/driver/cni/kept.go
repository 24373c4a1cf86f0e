package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// shelf has a directory for each network, by its id: the configuration that it was made
// with, and libcni's cache of what is attached to it. Neither is read again from where
// the user had it. It may be used concurrently.
type shelf struct {
	dir  string
	mu   sync.Mutex
	read map[string]chain
}

const confFile = "conf.json"

// place is a network's directory.
func (s *shelf) place(id string) string { return filepath.Join(s.dir, id) }

// load is a network's configuration; os.ErrNotExist: it has kept none.
func (s *shelf) load(id string) (chain, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.read[id]; ok {
		return c, nil
	}
	if !filepath.IsLocal(id) || strings.Contains(id, "/") {
		return chain{}, fmt.Errorf("network id %q: %w", id, errdefs.ErrInvalidArgument)
	}
	b, err := os.ReadFile(filepath.Join(s.place(id), confFile))
	if err != nil {
		return chain{}, fmt.Errorf("the configuration that the network was made with: %w", err)
	}
	c, err := kept(b)
	if err != nil {
		return c, fmt.Errorf("the configuration that the network was made with: %s: %w", s.place(id), err)
	}
	s.rememberLocked(id, c)
	return c, nil
}

// kept reads a configuration as settle has written it.
func kept(b []byte) (chain, error) {
	top := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &top); err != nil {
		return chain{}, err
	}
	list, err := listOf(top)
	if err != nil {
		return chain{}, err
	}
	return chain{NetworkConfigList: list}, check(list)
}

func (s *shelf) rememberLocked(id string, c chain) {
	if s.read == nil {
		s.read = map[string]chain{}
	}
	s.read[id] = c
}

// keep puts a network's configuration there, unless another network has one of its name:
// plugins know networks by it.
func (s *shelf) keep(id string, c chain) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.soleLocked(id, c.Name); err != nil {
		return err
	}
	dir := s.place(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(dir, confFile+".new")
	if err := os.WriteFile(tmp, c.Bytes, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, confFile)); err != nil {
		return err
	}
	s.rememberLocked(id, c)
	return nil
}

func (s *shelf) soleLocked(id, name string) error {
	dirs, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range dirs {
		b, err := os.ReadFile(filepath.Join(s.place(e.Name()), confFile))
		if err != nil || e.Name() == id {
			continue
		}
		if c, err := kept(b); err == nil && c.Name == name {
			return fmt.Errorf("network %.12s has the CNI name %s already, by which plugins know it (hint: a copy of the configuration with another \"name\"): %w", e.Name(), name, errdefs.ErrConflict)
		}
	}
	return nil
}

// drop takes away what a network has kept.
func (s *shelf) drop(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.read, id)
	return os.RemoveAll(s.place(id))
}
