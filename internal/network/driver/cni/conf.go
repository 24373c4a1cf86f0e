package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
)

// What a configuration may have at most: it goes through every plugin's standard input.
const (
	maxFile    = 1 << 20
	maxPlugins = 32
	maxFiles   = 1000 // of a directory
)

// chain is a configuration: plugins that are run one after the other.
type chain struct {
	*libcni.NetworkConfigList
	file string // where it came from; "": from what the network has kept
}

// takes reports whether a plugin of the chain has a capability.
func (c chain) takes(capability string) bool {
	return slices.ContainsFunc(c.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// since reports whether the chain's version of the specification is v or later.
func (c chain) since(v string) bool {
	ok, err := version.GreaterThanOrEqualTo(c.CNIVersion, v)
	return err == nil && ok
}

// read finds a configuration and reads it.
func (d *Driver) read(ref string) (chain, error) {
	if !strings.Contains(ref, "/") {
		return d.named(ref)
	}
	if !filepath.IsAbs(ref) {
		return chain{}, errors.New("a file is given with its whole path: isled is not where you are")
	}
	return readFile(ref)
}

// named looks for a configuration by the name that is in it. Files that cannot be read
// are passed over: they are somebody else's.
func (d *Driver) named(name string) (chain, error) {
	var wrong []string
	for _, dir := range d.ConfDirs {
		for _, ext := range []string{".conflist", ".conf", ".json"} {
			files, err := filesIn(dir, ext)
			if err != nil {
				return chain{}, err
			}
			for _, f := range files {
				c, err := readFile(f)
				if err == nil && c.Name == name {
					return c, nil
				}
				if err != nil {
					wrong = append(wrong, err.Error())
				}
			}
		}
	}
	err := fmt.Errorf("no configuration of that name is in %s", strings.Join(d.ConfDirs, ", "))
	if len(wrong) > 0 {
		err = fmt.Errorf("%w; not understood: %s", err, strings.Join(wrong[:min(len(wrong), 5)], "; "))
	}
	return chain{}, err
}

func filesIn(dir, ext string) (out []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() && filepath.Ext(e.Name()) == ext && len(out) < maxFiles {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// readFile reads a configuration with all that belongs to it into one value, which
// needs no file any more.
func readFile(path string) (chain, error) {
	b, err := contents(path)
	if err != nil {
		return chain{}, err
	}
	c, err := whole(b, filepath.Dir(path))
	if err != nil {
		return chain{}, fmt.Errorf("%s: %w", path, err)
	}
	c.file = path
	return c, nil
}

// contents reads a regular file of bounded size. It never waits for a writer.
func contents(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := trusted(f.Stat()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: a configuration has at most %d bytes", path, maxFile)
	}
	return b, err
}

// trusted reports whether a file can be what root runs, or is told what to run by.
func trusted(fi os.FileInfo, err error) error {
	switch {
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return errors.New("it is no regular file")
	case fi.Mode()&0o002 != 0:
		return errors.New("everybody can write it, so it is not trusted (hint: chmod o-w)")
	}
	return nil
}

// whole makes a list of what was read: a list, or a single plugin; with the plugins of
// the folder that has the network's name. Comments of libcni say "deprecated" of single
// plugins; users have them.
func whole(b []byte, dir string) (chain, error) {
	top := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &top); err != nil {
		return chain{}, fmt.Errorf("it is no JSON object: %w", err)
	}
	if _, list := top["plugins"]; !list && top["type"] != nil {
		top = map[string]json.RawMessage{"name": top["name"], "cniVersion": top["cniVersion"], "plugins": slices.Concat([]byte("["), b, []byte("]"))}
	}
	list, err := listOf(top)
	if err != nil {
		return chain{}, err
	}
	if list.Plugins, err = inFolder(list, dir); err != nil {
		return chain{}, err
	}
	return settle(top, list)
}

// listOf has libcni read top.
func listOf(top map[string]json.RawMessage) (*libcni.NetworkConfigList, error) {
	for k, v := range top {
		if v == nil {
			delete(top, k)
		}
	}
	b, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	list, err := libcni.NetworkConfFromBytes(b)
	if err != nil {
		return nil, err
	}
	if bad := utils.ValidateNetworkName(list.Name); bad != nil {
		return nil, fmt.Errorf("its name %q: %s", clean(list.Name), clean(bad.Error()))
	}
	return list, nil
}

// inFolder are the list's plugins and those of its folder.
func inFolder(list *libcni.NetworkConfigList, dir string) ([]*libcni.PluginConfig, error) {
	if list.LoadOnlyInlinedPlugins || dir == "" {
		return list.Plugins, nil
	}
	files, err := filesIn(filepath.Join(dir, list.Name), ".conf")
	if err != nil {
		return nil, err
	}
	all := list.Plugins
	for _, f := range files {
		b, err := contents(f)
		if err != nil {
			return nil, err
		}
		p, err := libcni.NetworkPluginConfFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// settle writes the list as it is now understood, and checks it.
func settle(top map[string]json.RawMessage, list *libcni.NetworkConfigList) (chain, error) {
	if len(list.Plugins) == 0 {
		return chain{}, errors.New("it has no plugins")
	}
	var plugins []json.RawMessage
	for _, p := range list.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	delete(top, "cniVersions")
	for k, v := range map[string]any{"cniVersion": list.CNIVersion, "plugins": plugins, "loadOnlyInlinedPlugins": true} {
		b, err := json.Marshal(v)
		if err != nil {
			return chain{}, err
		}
		top[k] = b
	}
	list, err := listOf(top)
	if err != nil {
		return chain{}, err
	}
	return chain{NetworkConfigList: list}, check(list)
}

var pluginName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

func check(list *libcni.NetworkConfigList) error {
	if list.CNIVersion == "" {
		list.CNIVersion = "0.1.0" // as the specification has it
	}
	known := version.All.SupportedVersions()
	switch {
	case len(list.Plugins) > maxPlugins:
		return fmt.Errorf("it has %d plugins; %d are the most", len(list.Plugins), maxPlugins)
	case len(list.Bytes) > maxFile:
		return fmt.Errorf("with its plugins it has more than %d bytes", maxFile)
	case !slices.Contains(known, list.CNIVersion):
		return fmt.Errorf("its cniVersion %q is none of %s", clean(list.CNIVersion), strings.Join(known, ", "))
	}
	for _, p := range list.Plugins {
		if !pluginName.MatchString(p.Network.Type) || p.Network.IPAM.Type != "" && !pluginName.MatchString(p.Network.IPAM.Type) {
			return fmt.Errorf("type %q, ipam %q: a plugin's name has letters, digits, '_', '.' and '-'", clean(p.Network.Type), clean(p.Network.IPAM.Type))
		}
	}
	return nil
}

// installed reports which plugin is not there, also those that plugins start.
func (d *Driver) installed(c chain) error {
	for _, p := range c.Plugins {
		for _, name := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if name == "" {
				continue
			}
			if _, err := find(name, d.PluginDirs); err != nil {
				return err
			}
		}
	}
	return nil
}

// find is where a plugin is.
func find(name string, dirs []string) (string, error) {
	if !pluginName.MatchString(name) {
		return "", fmt.Errorf("plugin %q: a plugin's name has letters, digits, '_', '.' and '-'", clean(name))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		fi, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := trusted(fi, err); err != nil {
			return "", fmt.Errorf("plugin %s: %w", path, err)
		}
		return path, nil
	}
	return "", fmt.Errorf("plugin %s is not in %s (hint: install it, with Debian containernetworking-plugins, or set network.cni-plugin-dirs)", name, strings.Join(dirs, ", "))
}
