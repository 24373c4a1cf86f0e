package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	initTarget  = "/sbin/docker-init"
)

func process(in Input, sec security) (*specs.Process, error) {
	cfg, hc := in.Record.Config, in.Record.Host
	caps, err := capabilities(in.Host, hc.Privileged, hc.CapAdd, hc.CapDrop)
	if err != nil {
		return nil, err
	}
	cwd, err := workingDir(cfg.WorkingDir)
	if err != nil {
		return nil, err
	}
	limits, err := processLimits(in.Host, in.Ulimits, hc.Ulimits)
	if err != nil {
		return nil, err
	}
	oom, err := oomScore(in.Host, hc.OomScoreAdj)
	if err != nil {
		return nil, err
	}
	profile, err := appArmorProfile(in.Host, sec.appArmor, hc.Privileged)
	if err != nil {
		return nil, err
	}
	return &specs.Process{
		Terminal:        cfg.Tty,
		ConsoleSize:     consoleSize(cfg.Tty, hc.ConsoleSize),
		User:            user32(in.User, hc.Umask),
		Args:            args(in),
		Env:             environment(cfg, in.User.Home, cfg.Tty, cfg.Env),
		Cwd:             cwd,
		Capabilities:    capabilitySets(caps, in.User.UID),
		Rlimits:         limits,
		NoNewPrivileges: sec.noNewPrivileges,
		ApparmorProfile: profile,
		OOMScoreAdj:     oom,
	}, nil
}

// ExecInput is a further process in a running container.
type ExecInput struct {
	Input   // as for Build; only Record, Host and Ulimits are used
	Request api.ExecCreateRequest
	User    User // Request.User resolved, or the container's
}

// Exec is the process of an exec session.
func Exec(in ExecInput) (*specs.Process, error) {
	sec, err := parseSecurity(in.Record.Host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	base := in.Input
	base.User = in.User
	p, err := process(base, sec)
	if err != nil {
		return nil, err
	}
	if in.Request.Privileged {
		p.Capabilities = capabilitySets(slices.Clone(in.Host.Caps), in.User.UID)
		p.ApparmorProfile = ""
	}
	if in.Request.WorkingDir != "" {
		if p.Cwd, err = workingDir(in.Request.WorkingDir); err != nil {
			return nil, err
		}
	}
	cfg := in.Record.Config
	p.Args, p.Terminal = in.Request.Cmd, in.Request.Tty
	p.Env = environment(cfg, in.User.Home, in.Request.Tty, append(slices.Clone(cfg.Env), in.Request.Env...))
	p.ConsoleSize = nil
	if s := in.Request.ConsoleSize; s != nil {
		p.ConsoleSize = consoleSize(in.Request.Tty, *s)
	}
	return p, nil
}

func user32(u User, umask *uint32) specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups, Umask: umask}
}

func consoleSize(tty bool, s [2]uint) *specs.Box {
	if !tty || s[0] == 0 || s[1] == 0 {
		return nil
	}
	return &specs.Box{Height: s[0], Width: s[1]}
}

// args is the command; with --init it is the init's to run. In a pid namespace
// of others there is nobody to be the parent of.
func args(in Input) []string {
	cmd := append([]string{in.Record.Path}, in.Record.Args...)
	if wantsInit(in) {
		return append([]string{initTarget, "--"}, cmd...)
	}
	return cmd
}

func wantsInit(in Input) bool {
	hc := in.Record.Host
	return hc.Init != nil && *hc.Init && hc.PidMode.IsPrivate()
}

func workingDir(dir string) (string, error) {
	if dir == "" {
		return "/", nil
	}
	if !path.IsAbs(dir) {
		return "", fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path: %w", dir, errdefs.ErrInvalidArgument)
	}
	return path.Clean(dir), nil
}

// environment is Docker's: defaults, then the image's and the user's, the last
// of a name counting, and HOME unless it is set. A name without "=" is removed.
func environment(cfg *api.Config, home string, tty bool, given []string) []string {
	env := []string{defaultPath, "HOSTNAME=" + cfg.Hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	for _, kv := range given {
		env = setEnv(env, kv)
	}
	if home != "" && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

func setEnv(env []string, kv string) []string {
	name, _, hasValue := strings.Cut(kv, "=")
	if name == "" {
		return env
	}
	i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	switch {
	case !hasValue && i >= 0:
		return slices.Delete(env, i, i+1)
	case !hasValue:
		return env
	case i >= 0:
		env[i] = kv
		return env
	}
	return append(env, kv)
}
