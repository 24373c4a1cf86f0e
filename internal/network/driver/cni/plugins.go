package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// plugins is how libcni finds and runs the plugins of one chain for one verb. It
// remembers which it was asked for last.
type plugins struct {
	version.PluginDecoder
	dirs  []string
	limit time.Duration
	last  string
	asked int
}

var _ invoke.Exec = (*plugins)(nil)

// over is libcni for one verb on a network.
func (d *Driver) over(id string, o options) (*libcni.CNIConfig, *plugins) {
	p := &plugins{dirs: d.PluginDirs, limit: cmp.Or(o.Limit, d.Limit)}
	return libcni.NewCNIConfigWithCacheDir(d.PluginDirs, d.kept.place(id), p), p
}

// FindInPath implements invoke.Exec.
func (p *plugins) FindInPath(name string, _ []string) (string, error) {
	p.last = name
	p.asked++
	return find(name, p.dirs)
}

// ExecPlugin implements invoke.Exec.
func (p *plugins) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	env := minimal(environ)
	run := program{path: path, env: env, stdin: stdin, limit: p.limit}
	out, err := run.run(ctx)
	for range 5 { // it is being written just now: an upgrade
		if !errors.Is(err, syscall.ETXTBSY) || ctx.Err() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
		out, err = run.run(ctx)
	}
	if err == nil && verb(env) == "ADD" {
		err = object(out.stdout)
	}
	if err != nil {
		return nil, &failure{plugin: p.last, verb: verb(env), said: said(out.stdout), out: out, why: err}
	}
	return out.stdout, nil
}

// object reports whether b can be a result.
func object(b []byte) error {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("it has printed no result: %w", err)
	}
	return nil
}

// fail is what became of the plugin that libcni asked for last; it wraps ours in words
// of its own.
func (p *plugins) fail(verb string, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if in := errors.Unwrap(err); in != nil && strings.HasPrefix(err.Error(), "plugin type=") {
		err = in
	}
	return &failure{plugin: p.last, verb: verb, why: err}
}

// said is the error that a plugin has printed; nil: it has printed none.
func said(stdout []byte) *types.Error {
	e := &types.Error{}
	if json.Unmarshal(stdout, e) != nil || e.Msg == "" && e.Code == 0 {
		return nil
	}
	return e
}

var variables = []string{"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_PATH"}

// minimal is the environment of a plugin: what the specification says, and where
// programs are. isled's own is none of its business.
func minimal(environ []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); slices.Contains(variables, name) {
			env = append(env, kv)
		}
	}
	return env
}

func verb(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "CNI_COMMAND="); ok {
			return v
		}
	}
	return ""
}

// exited reports whether err is that a program has said no, as opposed to having been
// killed or not started.
func exited(err error) bool {
	e, ok := errors.AsType[*exec.ExitError](err)
	return ok && e.Exited()
}
