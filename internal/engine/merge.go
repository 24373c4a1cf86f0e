package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// mergeImage lays what the user wants over what the image says. Nothing in an
// image may change isolation (CVE-2026-94603): only the fields named here are
// taken from it.
func mergeImage(user apitypes.Config, img dockerspec.DockerOCIImage) (*apitypes.Config, error) {
	from := img.Config
	c := user
	c.Env = mergeEnv(from.Env, user.Env)
	c.Labels = maps.Clone(from.Labels)
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, user.Labels)
	mergeCommand(&c, from)
	c.User = or(user.User, from.User)
	c.WorkingDir = or(user.WorkingDir, from.WorkingDir)
	c.StopSignal = or(user.StopSignal, from.StopSignal)
	c.OnBuild = nil
	if len(c.Shell) == 0 {
		c.Shell = from.Shell
	}
	c.Volumes = maps.Clone(user.Volumes)
	for v := range from.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	if err := mergePorts(&c, from.ExposedPorts); err != nil {
		return nil, err
	}
	return &c, mergeHealth(&c, from.Healthcheck)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// mergeCommand: an entrypoint of the user's discards the image's command; one
// empty string is how the user says "none".
func mergeCommand(c *apitypes.Config, from dockerspec.DockerOCIImageConfig) {
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(from.Cmd)
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(from.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
}

// mergeEnv keeps the image's order; the user's value of a name wins. A name
// without a value takes the variable away.
func mergeEnv(image, user []string) []string {
	out := slices.Clone(image)
	for _, kv := range user {
		name, _, set := strings.Cut(kv, "=")
		i := slices.IndexFunc(out, func(s string) bool { return s == name || strings.HasPrefix(s, name+"=") })
		switch {
		case i >= 0 && set:
			out[i] = kv
		case i >= 0:
			out = slices.Delete(out, i, i+1)
		case set:
			out = append(out, kv)
		}
	}
	return out
}

func mergePorts(c *apitypes.Config, exposed map[string]struct{}) error {
	ports := maps.Clone(c.ExposedPorts)
	for s := range exposed {
		r, err := networktypes.ParsePortRange(s)
		if err != nil {
			return fmt.Errorf("port exposed by the image: %w", invalid("%s", err))
		}
		if ports == nil {
			ports = networktypes.PortSet{}
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	c.ExposedPorts = ports
	return nil
}

// mergeHealth takes from the image each value that the user leaves out.
func mergeHealth(c *apitypes.Config, from *apitypes.HealthConfig) error {
	if c.Healthcheck == nil {
		c.Healthcheck = from
	} else if from != nil {
		h := *c.Healthcheck
		if len(h.Test) == 0 {
			h.Test = from.Test
		}
		h.Interval = orZero(h.Interval, from.Interval)
		h.Timeout = orZero(h.Timeout, from.Timeout)
		h.StartPeriod = orZero(h.StartPeriod, from.StartPeriod)
		h.StartInterval = orZero(h.StartInterval, from.StartInterval)
		h.Retries = orZero(h.Retries, from.Retries)
		c.Healthcheck = &h
	}
	return nil
}

func orZero[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}
