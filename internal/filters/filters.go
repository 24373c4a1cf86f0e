// Package filters reads the "filters" parameter of the Docker API and answers
// whether a thing passes it. Terms of one key are alternatives; all keys must
// pass.
package filters

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Args are the terms of each key. The zero value lets everything pass.
type Args map[string][]string

// Parse reads the JSON of the parameter, in today's form {"label":["a=b"]} and
// in the one of old clients {"label":{"a=b":true}}. An empty string is no filter.
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	var lists map[string][]string
	if json.Unmarshal([]byte(s), &lists) == nil {
		return lists, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &sets); err != nil {
		return nil, fmt.Errorf("invalid filter %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	a := Args{}
	for k, set := range sets {
		for v, on := range set {
			if on {
				a[k] = append(a[k], v)
			}
		}
		slices.Sort(a[k])
	}
	return a, nil
}

// Validate refuses keys that are not in known.
func (a Args) Validate(known ...string) error {
	for k := range a {
		if !slices.Contains(known, k) {
			return fmt.Errorf("invalid filter '%s': %w", k, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Has reports whether there is a term for key.
func (a Args) Has(key string) bool { return len(a[key]) > 0 }

// Get returns the terms of key.
func (a Args) Get(key string) []string { return a[key] }

// Exact reports whether key is not filtered on, or one of its terms is v.
func (a Args) Exact(key, v string) bool { return !a.Has(key) || slices.Contains(a[key], v) }

// Prefix is Exact for terms that are the beginning of v.
func (a Args) Prefix(key, v string) bool {
	return a.any(key, func(t string) bool { return strings.HasPrefix(v, t) })
}

// Substring is Exact for terms that stand somewhere in v.
func (a Args) Substring(key, v string) bool {
	return a.any(key, func(t string) bool { return strings.Contains(v, t) })
}

// Regexp is Exact for terms that are regular expressions; one that does not
// compile matches as a substring.
func (a Args) Regexp(key, v string) bool {
	return a.any(key, func(t string) bool {
		re, err := regexp.Compile(t)
		if err != nil {
			return strings.Contains(v, t)
		}
		return re.MatchString(v)
	})
}

// Labels reports whether labels has every "k" or "k=v" among the terms of key,
// and none of those of key with a "!" behind it ("label!").
func (a Args) Labels(key string, labels map[string]string) bool {
	for _, t := range a[key] {
		if !hasLabel(labels, t) {
			return false
		}
	}
	for _, t := range a[key+"!"] {
		if hasLabel(labels, t) {
			return false
		}
	}
	return true
}

// Bool reads a key with one boolean term; def is for none.
func (a Args) Bool(key string, def bool) (bool, error) {
	if !a.Has(key) {
		return def, nil
	}
	v := def
	for i, t := range a[key] {
		b, err := parseBool(t)
		if err != nil || (i > 0 && b != v) {
			return false, fmt.Errorf("invalid filter '%s=%v': %w", key, a[key], errdefs.ErrInvalidArgument)
		}
		v = b
	}
	return v, nil
}

func (a Args) any(key string, match func(string) bool) bool {
	return !a.Has(key) || slices.ContainsFunc(a[key], match)
}

func hasLabel(labels map[string]string, term string) bool {
	k, want, exact := strings.Cut(term, "=")
	v, ok := labels[k]
	return ok && (!exact || v == want)
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "true", "t":
		return true, nil
	case "0", "false", "f":
		return false, nil
	}
	return false, fmt.Errorf("%q is not a boolean", s)
}
