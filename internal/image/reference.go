package image

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// danglingPrefix begins the names of images that people have no name for.
// It cannot be the beginning of a reference.
const danglingPrefix = "isle-dangling@"

func danglingName(d digest.Digest) string { return danglingPrefix + d.String() }

func isDangling(name string) bool { return strings.HasPrefix(name, danglingPrefix) }

// parseName reads what a user types as an image's name; "latest" is added
// where there is neither tag nor digest, and a tag beside a digest is dropped.
func parseName(s string) (reference.Named, error) {
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, fmt.Errorf("invalid reference format: %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	if d, ok := n.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(n), d.Digest())
	}
	return reference.TagNameOnly(n), nil
}

// familiar is a stored name as people write it.
func familiar(name string) string {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(n)
}

// tagged reports whether a stored name has a tag rather than a digest.
func tagged(name string) bool {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	_, ok := n.(reference.Tagged)
	return ok
}

// repoDigest is the repository of a stored name with the digest of its target.
func repoDigest(name string, d digest.Digest) string {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return reference.FamiliarName(n) + "@" + d.String()
}
