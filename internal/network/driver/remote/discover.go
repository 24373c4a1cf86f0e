package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// Where Docker looks for plugins. A socket comes before a file that names an address.
var (
	socketDirs = []string{"/run/docker/plugins"}
	specDirs   = []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}
)

// fileLimit is far above what specifications and certificates need.
const fileLimit = 1 << 20

// where is a plugin as it was found. Two are equal when they are the same start of the
// same plugin, as far as files tell: with a start a socket is made anew.
type where struct {
	addr     url.URL
	tls      tlsFiles
	dev, ino uint64
	changed  int64
}

// tlsFiles is the part TLSConfig of a specification.
type tlsFiles struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

var (
	pluginName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	// managed are references to images, which Docker's managed plugins have as names.
	managed = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_./:@-]{0,254}$`)
)

// checkName keeps names out of which paths to other places could be made.
func checkName(name string) error {
	switch {
	case pluginName.MatchString(name):
		return nil
	case managed.MatchString(name) && strings.ContainsAny(name, "/:@") && !strings.Contains(name, ".."):
		return fmt.Errorf("%w (hint: managed plugins, which are images, are not supported; run the plugin as a program or in a container with /run/docker/plugins)", &missingError{name})
	}
	return fmt.Errorf("invalid plugin name %q: 1 to 128 letters, digits, '_', '-', '.', beginning with a letter or digit: %w", name, errdefs.ErrInvalidArgument)
}

// possible reports whether a plugin can have a name, or a person may think so: of
// managed ones it is said what is wrong with them.
func possible(name string) bool {
	err := checkName(name)
	return err == nil || missing(err)
}

// missingError : no file stands for a plugin, in Docker's own words.
type missingError struct{ name string }

func (e *missingError) Error() string {
	return "could not find plugin " + e.name + " in v1 plugin registry: plugin not found"
}

func (e *missingError) Unwrap() error { return errdefs.ErrNotFound }

func missing(err error) bool { return errors.As(err, new(*missingError)) }

// find looks for a plugin as Docker does: NAME.ext and NAME/NAME.ext in each directory.
func (c Config) find(name string) (where, error) {
	if err := checkName(name); err != nil {
		return where{}, err
	}
	for _, path := range candidates(c.Sockets, name, ".sock") {
		if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
			return stamp(where{addr: url.URL{Scheme: "unix", Path: path}}, fi), nil
		}
	}
	for _, path := range candidates(c.Specs, name, ".spec", ".json") {
		w, err := readSpec(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return where{}, fmt.Errorf("plugin %s: specification %s: %w", name, path, err)
		}
		return w, nil
	}
	return where{}, &missingError{name}
}

func candidates(dirs []string, name string, exts ...string) (out []string) {
	for _, dir := range dirs {
		for _, ext := range exts {
			out = append(out, filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext))
		}
	}
	return out
}

func stamp(w where, fi os.FileInfo) where {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		w.dev, w.ino, w.changed = st.Dev, st.Ino, st.Ctim.Nano()
	}
	return w
}

func readSpec(path string) (w where, err error) {
	b, fi, err := readSmall(path)
	if err != nil {
		return w, err
	}
	w, err = parseSpec(filepath.Ext(path), b)
	return stamp(w, fi), err
}

// readSmall reads a file that somebody wrote, as far as it is one.
func readSmall(path string) (b []byte, fi os.FileInfo, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would keep us waiting
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if fi, err = f.Stat(); err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("not a file: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, nil, err
	}
	b, err = io.ReadAll(io.LimitReader(f, fileLimit+1))
	if err == nil && len(b) > fileLimit {
		err = fmt.Errorf("more than %d bytes: %w", fileLimit, errdefs.ErrInvalidArgument)
	}
	return b, fi, err
}

// parseSpec reads a .spec, which is an address, or a .json.
func parseSpec(ext string, b []byte) (w where, err error) {
	spec := struct {
		Addr      string
		TLSConfig tlsFiles
	}{Addr: strings.TrimSpace(string(b))}
	if ext == ".json" {
		spec.Addr = ""
		if err := json.Unmarshal(b, &spec); err != nil {
			return w, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	w.tls = spec.TLSConfig
	u, err := parseAddr(spec.Addr)
	w.addr = u
	return w, err
}

func parseAddr(addr string) (url.URL, error) {
	u, err := url.Parse(addr)
	switch {
	case err != nil:
		return url.URL{}, fmt.Errorf("address %q: %w: %w", addr, err, errdefs.ErrInvalidArgument)
	case u.Scheme == "":
		return url.URL{}, fmt.Errorf("address %q: unknown protocol (hint: write it like unix:///run/x.sock or tcp://localhost:8080): %w", addr, errdefs.ErrInvalidArgument)
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		return url.URL{Scheme: "unix", Path: filepath.Clean(u.Path)}, nil
	case slices.Contains([]string{"tcp", "http", "https"}, u.Scheme) && u.Host != "" && u.User == nil:
		return url.URL{Scheme: u.Scheme, Host: u.Host}, nil // Docker leaves the path out too
	}
	return url.URL{}, fmt.Errorf("address %q: neither unix:///PATH nor tcp, http or https with a host: %w", addr, errdefs.ErrInvalidArgument)
}
