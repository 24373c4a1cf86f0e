package volume

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"

	isle "isle/internal/container"
	"isle/internal/ids"
)

// Wanted is a mount as it was asked for. Volume is what has to be created (or
// found) first; it is nil for other mounts.
type Wanted struct {
	isle.Mount
	Volume *volume.CreateRequest
}

// Parse reads all that says what a container mounts: --volumes-from, -v,
// --mount and the volumes of the image. from returns the mounts of another
// container. It touches nothing; --tmpfs (HostConfig.Tmpfs) is checked and
// left where it is. Errors are of class InvalidArgument, in Docker's words.
func Parse(cfg *container.Config, hc *container.HostConfig, from func(ref string) ([]isle.Mount, error)) ([]Wanted, error) {
	p := parser{at: map[string]int{}, given: map[string]bool{}, driver: hc.VolumeDriver}
	if err := p.inherit(hc.VolumesFrom, from); err != nil {
		return nil, err
	}
	for target, opts := range hc.Tmpfs {
		if err := p.tmpfs(target, opts); err != nil {
			return nil, invalid(err)
		}
	}
	for _, raw := range hc.Binds {
		w, err := parseBind(raw, p.driver)
		if err != nil {
			return nil, invalid(fmt.Errorf("invalid volume specification: '%s': %w", raw, err))
		}
		if err := p.add(w); err != nil {
			return nil, invalid(err)
		}
	}
	for _, m := range hc.Mounts {
		w, err := parseMount(m)
		if err != nil {
			return nil, invalid(fmt.Errorf("invalid mount config for type %q: %w", m.Type, err))
		}
		if err := p.add(w); err != nil {
			return nil, invalid(err)
		}
	}
	if err := p.image(cfg.Volumes); err != nil {
		return nil, invalid(err)
	}
	return p.out, nil
}

func invalid(err error) error { return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument) }

type parser struct {
	out    []Wanted
	at     map[string]int  // destination → index in out
	given  map[string]bool // destinations that the user named, which must not be named twice
	driver string
}

func (p *parser) add(w Wanted) error {
	if p.given[w.Destination] {
		return fmt.Errorf("Duplicate mount point: %s", w.Destination)
	}
	p.given[w.Destination] = true
	p.put(w)
	return nil
}

// put adds w, in the place of an inherited one.
func (p *parser) put(w Wanted) {
	if i, ok := p.at[w.Destination]; ok {
		p.out[i] = w
		return
	}
	p.at[w.Destination] = len(p.out)
	p.out = append(p.out, w)
}

func (p *parser) tmpfs(target, opts string) error {
	target, err := destination(target)
	if err != nil {
		return err
	}
	for _, o := range strings.Split(opts, ",") {
		if err := checkTmpfsOption(o); err != nil {
			return err
		}
	}
	p.given[target] = true
	return nil
}

// inherit takes over the mounts of other containers: "ref" or "ref:mode".
func (p *parser) inherit(refs []string, from func(string) ([]isle.Mount, error)) error {
	for _, spec := range refs {
		ref, text, _ := strings.Cut(spec, ":")
		if ref == "" {
			return invalid(fmt.Errorf("invalid volumes-from spec: %s", spec))
		}
		m, err := parseMode(text)
		if err != nil || m.propagation != "" || m.noCopy {
			return invalid(fmt.Errorf("invalid mode: %s", text))
		}
		mounts, err := from(ref)
		if err != nil {
			return err
		}
		for _, mp := range mounts {
			mp.RW = mp.RW && !m.readOnly
			mp.NoCopy, mp.Anonymous, mp.Created = true, false, false
			p.put(Wanted{Mount: mp})
		}
	}
	return nil
}

// image adds the volumes of Config.Volumes that nothing else is mounted at.
func (p *parser) image(volumes map[string]struct{}) error {
	for _, target := range slices.Sorted(maps.Keys(volumes)) {
		dest, err := destination(target)
		if err != nil {
			return err
		}
		if _, taken := p.at[dest]; taken || p.given[dest] {
			continue
		}
		p.put(wantVolume("", dest, p.driver))
	}
	return nil
}

// wantVolume is a writable volume; one without a name gets one that nobody
// else has.
func wantVolume(name, target, driver string) Wanted {
	w := Wanted{Volume: &volume.CreateRequest{Name: name, Driver: driver}}
	w.Type, w.Destination, w.RW, w.Driver = mount.TypeVolume, target, true, driver
	if name == "" {
		w.Anonymous = true
		w.Volume.Name, w.Volume.Labels = ids.New(), map[string]string{Anonymous: ""}
	}
	w.Name = w.Volume.Name
	return w
}

// parseBind reads "[source:]destination[:mode]".
func parseBind(raw, driver string) (Wanted, error) {
	var source, target, text string
	switch arr := strings.Split(raw, ":"); {
	case arr[0] == "":
		return Wanted{}, fmt.Errorf("the source is empty")
	case len(arr) == 1:
		target = arr[0]
	case len(arr) == 2:
		if _, err := parseMode(arr[1]); err == nil && !path.IsAbs(arr[1]) {
			return Wanted{}, fmt.Errorf("a volume without a source takes no mode")
		}
		source, target = arr[0], arr[1]
	case len(arr) == 3:
		source, target, text = arr[0], arr[1], arr[2]
	default:
		return Wanted{}, fmt.Errorf("too many colons")
	}
	m, err := parseMode(text)
	if err != nil {
		return Wanted{}, err
	}
	dest, err := destination(target)
	if err != nil {
		return Wanted{}, err
	}
	if path.IsAbs(source) {
		return m.bind(source, dest), nil
	}
	if m.propagation != "" {
		return Wanted{}, fmt.Errorf("invalid mode: %s", text)
	}
	if source != "" {
		if err := CheckName(source); err != nil {
			return Wanted{}, err
		}
	}
	w := wantVolume(source, dest, driver)
	w.RW, w.NoCopy, w.Mode = !m.readOnly, m.noCopy, text
	return w, nil
}

// mode is the last part of a -v.
type mode struct {
	text        string
	readOnly    bool
	noCopy      bool
	propagation mount.Propagation
}

// modeGroups: of each group at most one word.
var modeGroups = map[string]int{
	"rw": 1, "ro": 1, "z": 2, "Z": 2, "nocopy": 3,
	"private": 4, "rprivate": 4, "shared": 4, "rshared": 4, "slave": 4, "rslave": 4,
	"consistent": 5, "cached": 5, "delegated": 5,
}

func parseMode(text string) (mode, error) {
	m := mode{text: text}
	if text == "" {
		return m, nil
	}
	seen := map[int]bool{}
	for _, word := range strings.Split(text, ",") {
		group := modeGroups[word]
		if group == 0 || seen[group] {
			return m, fmt.Errorf("invalid mode: %s", text)
		}
		seen[group] = true
		switch {
		case word == "ro":
			m.readOnly = true
		case word == "nocopy":
			m.noCopy = true
		case group == 4:
			m.propagation = mount.Propagation(word)
		}
	}
	return m, nil
}

func (m mode) bind(source, dest string) Wanted {
	var w Wanted
	w.Type, w.Source, w.Destination, w.RW, w.Mode = mount.TypeBind, path.Clean(source), dest, !m.readOnly, m.text
	w.Propagation, w.MayCreate = m.propagation, true
	if w.Propagation == "" {
		w.Propagation = mount.PropagationRPrivate
	}
	return w
}

// destination is a clean place in the container.
func destination(target string) (string, error) {
	switch clean := path.Clean(target); {
	case target == "":
		return "", fmt.Errorf("field Target must not be empty")
	case !path.IsAbs(target):
		return "", fmt.Errorf("invalid mount path: '%s' mount path must be absolute", target)
	case clean == "/":
		return "", fmt.Errorf("invalid specification: destination can't be '/'")
	default:
		return clean, nil
	}
}

// Settle creates what wanted mounts need, volumes through c and directories of
// -v, and says where everything is. It is for the time a container is created.
func Settle(wanted []Wanted, create func(volume.CreateRequest) (volume.Volume, error)) ([]isle.Mount, error) {
	out := make([]isle.Mount, 0, len(wanted))
	for _, w := range wanted {
		m := w.Mount
		if w.Volume != nil {
			v, err := create(*w.Volume)
			if err != nil {
				return nil, err
			}
			m.Name, m.Source, m.Driver = v.Name, v.Mountpoint, v.Driver
			if m.Mode == "" && !m.Anonymous {
				m.Mode = "z" // as Docker shows it
			}
		}
		out = append(out, m)
	}
	return out, PrepareBinds(out)
}

// PrepareBinds checks that the sources of binds are there, makes those that
// may be made, and notes it. It is for every start: sources come and go.
func PrepareBinds(mounts []isle.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeBind {
			continue
		}
		if _, err := os.Stat(m.Source); os.IsNotExist(err) {
			if !m.MayCreate {
				return invalid(fmt.Errorf("invalid mount config for type %q: bind source path does not exist: %s", m.Type, m.Source))
			}
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return invalid(fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err))
			}
			m.Created = true
		} else if err != nil {
			return invalid(fmt.Errorf("invalid mount config for type %q: %w", m.Type, err))
		}
		if err := checkPropagation(m.Source, m.Propagation); err != nil {
			return err
		}
	}
	return nil
}

// Subpath is the directory sub of a volume, with no link on the way that leads
// out of it.
func Subpath(source, sub string) (string, error) {
	if sub == "" {
		return source, nil
	}
	root, err := os.OpenRoot(source)
	if err != nil {
		return "", fmt.Errorf("volume subpath: %w", err)
	}
	defer root.Close()
	f, err := root.Open(sub)
	if err != nil {
		return "", invalid(fmt.Errorf("cannot access path %s: %w", filepath.Join(source, sub), err))
	}
	defer f.Close()
	// The name the kernel has for what was opened: no link is left in it.
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}
