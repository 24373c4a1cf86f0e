package volume

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"

	isle "isle/internal/container"
)

// parseMount reads one of HostConfig.Mounts (--mount).
func parseMount(m mount.Mount) (Wanted, error) {
	dest, err := destination(m.Target)
	if err != nil {
		return Wanted{}, err
	}
	if err := checkExtra(m); err != nil {
		return Wanted{}, err
	}
	switch m.Type {
	case mount.TypeBind:
		return parseBindMount(m, dest)
	case mount.TypeVolume:
		return parseVolumeMount(m, dest)
	case mount.TypeTmpfs:
		return parseTmpfsMount(m, dest)
	case mount.TypeImage:
		return Wanted{}, errors.New("mounting an image is not supported by Isle; hint: copy what you need with 'cp', or use a volume")
	}
	return Wanted{}, errors.New("mount type unknown")
}

// checkExtra refuses the options of another type.
func checkExtra(m mount.Mount) error {
	for _, o := range []struct {
		name  string
		given bool
		of    mount.Type
	}{
		{"BindOptions", m.BindOptions != nil, mount.TypeBind},
		{"VolumeOptions", m.VolumeOptions != nil, mount.TypeVolume},
		{"TmpfsOptions", m.TmpfsOptions != nil, mount.TypeTmpfs},
		{"ImageOptions", m.ImageOptions != nil, mount.TypeImage},
		{"ClusterOptions", m.ClusterOptions != nil, mount.TypeCluster},
	} {
		if o.given && o.of != m.Type {
			return fmt.Errorf("field %s must not be specified", o.name)
		}
	}
	return nil
}

func parseBindMount(m mount.Mount, dest string) (Wanted, error) {
	o := mount.BindOptions{}
	if m.BindOptions != nil {
		o = *m.BindOptions
	}
	if err := checkBindOptions(m, &o); err != nil {
		return Wanted{}, err
	}
	w := Wanted{Mount: isle.Mount{
		MayCreate: o.CreateMountpoint, NonRecursive: o.NonRecursive,
		ReadOnlyNonRecursive: o.ReadOnlyNonRecursive, ReadOnlyForceRecursive: o.ReadOnlyForceRecursive,
	}}
	w.Type, w.Source, w.Destination, w.RW, w.Propagation = m.Type, path.Clean(m.Source), dest, !m.ReadOnly, o.Propagation
	if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) && !o.CreateMountpoint {
		return Wanted{}, fmt.Errorf("bind source path does not exist: %s", m.Source)
	}
	return w, nil
}

func checkBindOptions(m mount.Mount, o *mount.BindOptions) error {
	if o.Propagation == "" {
		o.Propagation = mount.PropagationRPrivate
	}
	switch {
	case m.Source == "":
		return errors.New("field Source must not be empty")
	case !path.IsAbs(m.Source):
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", m.Source)
	case !slices.Contains(mount.Propagations, o.Propagation):
		return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
	case o.ReadOnlyNonRecursive && !m.ReadOnly:
		return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive")
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return errors.New("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive")
	case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
		return errors.New("mount options conflict: BindOptions.ReadOnlyForceRecursive && BindOptions.ReadOnlyNonRecursive")
	case o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate:
		return errors.New("mount options conflict: BindOptions.ReadOnlyForceRecursive requires the propagation rprivate")
	}
	return nil
}

func parseVolumeMount(m mount.Mount, dest string) (Wanted, error) {
	o := mount.VolumeOptions{}
	if m.VolumeOptions != nil {
		o = *m.VolumeOptions
	}
	switch {
	case m.Source == "" && m.ReadOnly:
		return Wanted{}, errors.New("must not set ReadOnly mode when using anonymous volumes")
	case m.Source == "" && o.Subpath != "":
		return Wanted{}, errors.New("must not set Subpath when using anonymous volumes")
	case o.Subpath != "" && !filepath.IsLocal(o.Subpath):
		return Wanted{}, errors.New("subpath must be a relative path within the volume")
	case m.Source != "":
		if err := CheckName(m.Source); err != nil {
			return Wanted{}, err
		}
	}
	w := wantVolume(m.Source, dest, "")
	w.RW, w.NoCopy, w.Subpath = !m.ReadOnly, o.NoCopy, o.Subpath
	if w.Volume.Labels == nil && len(o.Labels) > 0 {
		w.Volume.Labels = map[string]string{}
	}
	for k, v := range o.Labels {
		w.Volume.Labels[k] = v
	}
	if d := o.DriverConfig; d != nil {
		w.Driver, w.Volume.Driver, w.Volume.DriverOpts = d.Name, d.Name, d.Options
	}
	return w, nil
}

func parseTmpfsMount(m mount.Mount, dest string) (Wanted, error) {
	if m.Source != "" {
		return Wanted{}, errors.New("field Source must not be specified")
	}
	var w Wanted
	w.Type, w.Destination, w.RW = m.Type, dest, !m.ReadOnly
	o := m.TmpfsOptions
	if o == nil {
		return w, nil
	}
	if o.SizeBytes < 0 {
		return w, fmt.Errorf("invalid tmpfs size: %d", o.SizeBytes)
	}
	if o.Mode != 0 {
		w.TmpfsOpts = append(w.TmpfsOpts, fmt.Sprintf("mode=%o", o.Mode))
	}
	if o.SizeBytes > 0 {
		w.TmpfsOpts = append(w.TmpfsOpts, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	for _, kv := range o.Options {
		if len(kv) < 1 || len(kv) > 2 {
			return w, fmt.Errorf("invalid option array length for tmpfs: %d", len(kv))
		}
		opt := strings.Join(kv, "=")
		if err := checkTmpfsOption(opt); err != nil {
			return w, err
		}
		w.TmpfsOpts = append(w.TmpfsOpts, opt)
	}
	return w, nil
}

// tmpfsOptions are those a tmpfs may be given; true: with a value.
var tmpfsOptions = map[string]bool{
	"size": true, "mode": true, "uid": true, "gid": true, "nr_inodes": true, "nr_blocks": true, "mpol": true, "huge": true,
	"ro": false, "rw": false, "exec": false, "noexec": false, "suid": false, "nosuid": false, "dev": false, "nodev": false,
	"sync": false, "async": false, "dirsync": false, "atime": false, "noatime": false, "diratime": false, "nodiratime": false,
	"relatime": false, "norelatime": false, "strictatime": false, "nostrictatime": false, "remount": false, "defaults": false,
	"private": false, "rprivate": false, "shared": false, "rshared": false, "slave": false, "rslave": false, "bind": false, "rbind": false,
}

func checkTmpfsOption(o string) error {
	if o == "" {
		return nil
	}
	name, value, has := strings.Cut(o, "=")
	takes, known := tmpfsOptions[name]
	if !known || takes != has || has && value == "" {
		return fmt.Errorf("invalid tmpfs option [%q]", o)
	}
	return nil
}
