package image

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// ApplyChanges changes c by Dockerfile instructions, as "commit --change" and
// "import --change" take them. What c's slices and maps lead to is not touched.
func ApplyChanges(c *container.Config, changes []string) error {
	for _, line := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		apply, ok := instructions[strings.ToUpper(word)]
		if !ok {
			return fmt.Errorf("%s is not a valid change command: %w", word, errdefs.ErrInvalidArgument)
		}
		if err := apply(c, strings.TrimSpace(rest)); err != nil {
			return fmt.Errorf("change %q: %w: %w", line, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

var instructions = map[string]func(*container.Config, string) error{
	"CMD": func(c *container.Config, s string) (err error) {
		c.Cmd, err = command(c, s)
		return err
	},
	"ENTRYPOINT": func(c *container.Config, s string) (err error) {
		c.Entrypoint, err = command(c, s)
		return err
	},
	"ENV": func(c *container.Config, s string) error {
		return eachPair(s, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	},
	"LABEL": func(c *container.Config, s string) error {
		c.Labels = cloned(c.Labels)
		return eachPair(s, func(k, v string) { c.Labels[k] = v })
	},
	"EXPOSE":      expose,
	"VOLUME":      volumes,
	"HEALTHCHECK": healthcheck,
	"WORKDIR": func(c *container.Config, s string) error {
		s = unquote(s)
		if !strings.HasPrefix(s, "/") {
			s = strings.TrimSuffix(c.WorkingDir, "/") + "/" + s
		}
		c.WorkingDir = s
		return nonEmpty(s)
	},
	"USER": func(c *container.Config, s string) error {
		c.User = unquote(s)
		return nonEmpty(s)
	},
	"STOPSIGNAL": func(c *container.Config, s string) error {
		c.StopSignal = unquote(s)
		return nonEmpty(s)
	},
	"ONBUILD": func(c *container.Config, s string) error {
		c.OnBuild = append(slices.Clone(c.OnBuild), s)
		return nonEmpty(s)
	},
	"SHELL": func(c *container.Config, s string) error {
		return json.Unmarshal([]byte(s), &c.Shell)
	},
}

func nonEmpty(s string) error {
	if s == "" {
		return fmt.Errorf("needs an argument")
	}
	return nil
}

func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}

func cloned[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// command reads the JSON form, or the shell form.
func command(c *container.Config, s string) ([]string, error) {
	if err := nonEmpty(s); err != nil {
		return nil, err
	}
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list, nil
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s), nil
}

func setEnv(env []string, k, v string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, k+"=") })
	return append(env, k+"="+v)
}

// eachPair reads k=v words, or the old form "k v".
func eachPair(s string, fn func(k, v string)) error {
	words, err := split(s)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return nonEmpty("")
	}
	if !strings.Contains(words[0], "=") {
		k, v, ok := strings.Cut(s, " ")
		if !ok {
			return fmt.Errorf("must have two arguments")
		}
		fn(k, unquote(strings.TrimSpace(v)))
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return fmt.Errorf("cannot find = in %q", w)
		}
		fn(k, v)
	}
	return nil
}

// split cuts s at blanks that are neither quoted nor escaped.
func split(s string) (words []string, err error) {
	var b strings.Builder
	quote, in := rune(0), false
	escaped := false
	for _, c := range s {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("quote is not closed")
	}
	if in {
		words = append(words, b.String())
	}
	return words, nil
}

func expose(c *container.Config, s string) error {
	ports := network.PortSet{}
	maps.Copy(ports, c.ExposedPorts)
	words := strings.Fields(s)
	for _, w := range words {
		r, err := network.ParsePortRange(w)
		if err != nil {
			return err
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	c.ExposedPorts = ports
	return nonEmpty(strings.Join(words, ""))
}

func volumes(c *container.Config, s string) error {
	var list []string
	if json.Unmarshal([]byte(s), &list) != nil {
		list = strings.Fields(s)
	}
	c.Volumes = cloned(c.Volumes)
	for _, v := range list {
		c.Volumes[v] = struct{}{}
	}
	return nonEmpty(strings.Join(list, ""))
}

func healthcheck(c *container.Config, s string) error {
	var h container.HealthConfig
	fs := flag.NewFlagSet("HEALTHCHECK", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for name, at := range map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	} {
		fs.DurationVar(at, name, 0, "")
	}
	fs.IntVar(&h.Retries, "retries", 0, "")
	flags, rest := []string{}, s
	for strings.HasPrefix(rest, "--") {
		word, more, _ := strings.Cut(rest, " ")
		flags, rest = append(flags, word), strings.TrimSpace(more)
	}
	if err := fs.Parse(flags); err != nil {
		return err
	}
	kind, arg, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		var list []string
		if json.Unmarshal([]byte(arg), &list) == nil {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", strings.TrimSpace(arg)}
		}
	default:
		return fmt.Errorf("unknown type %q", kind)
	}
	c.Healthcheck = &h
	return nil
}
