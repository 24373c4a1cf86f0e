package engine

import (
	"fmt"
	"os"
	"path/filepath"
)

// dir is where a container's own files are: its log and those that are
// mounted into it.
func (e *Engine) dir(id string) string { return filepath.Join(e.Config.DataDir, "containers", id) }

func (e *Engine) hostsPath(id string) string      { return filepath.Join(e.dir(id), "hosts") }
func (e *Engine) hostnamePath(id string) string   { return filepath.Join(e.dir(id), "hostname") }
func (e *Engine) resolvConfPath(id string) string { return filepath.Join(e.dir(id), "resolv.conf") }
func (e *Engine) logPath(id string) string        { return filepath.Join(e.dir(id), id+"-json.log") }

// bundle is where a running container's OCI configuration is.
func (e *Engine) bundle(id string) string { return filepath.Join(e.Config.RunDir, "bundles", id) }

func (e *Engine) removeBundle(id string) error {
	if err := os.RemoveAll(e.bundle(id)); err != nil {
		return fmt.Errorf("remove bundle: %w", err)
	}
	return nil
}
