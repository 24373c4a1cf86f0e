package image

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What an image may cost before anybody has chosen to run it. The numbers are
// far above what any honest image has.
const (
	maxDocument  = 4 << 20 // bytes of a manifest, index or configuration
	maxDepth     = 64      // nesting of their JSON
	maxLayers    = 128     // overlay's own limit is 500; the mount options' is lower
	maxManifests = 512     // in an index
	maxNesting   = 3       // of indexes in indexes

	// A layer may grow by maxRatio when it is decompressed, or to
	// maxPlain bytes, whichever is more. Gzip cannot exceed the ratio.
	maxRatio = 1100
	maxPlain = 1 << 30
)

func tooMuch(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// checkDocument refuses a descriptor of a JSON document before it is fetched.
func checkDocument(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%s: %w: %w", d.Digest, err, errdefs.ErrInvalidArgument)
	}
	if d.Size <= 0 || d.Size > maxDocument {
		return tooMuch("%s %s has %d bytes, allowed are 1 to %d", d.MediaType, d.Digest, d.Size, maxDocument)
	}
	return nil
}

// decode reads a JSON document that is not nested too deeply.
func decode(b []byte, into any) error {
	if err := checkDepth(b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("not the expected JSON: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func checkDepth(b []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return tooMuch("JSON is nested more than %d deep", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// checkManifest refuses a manifest that is not one, or asks for too much.
func checkManifest(m ocispec.Manifest, raw []byte) error {
	if bytes.Contains(raw, []byte(`"fsLayers"`)) && m.Config.Digest == "" {
		return fmt.Errorf("image format schema 1 is not supported: %w", errdefs.ErrNotImplemented)
	}
	if len(m.Layers) > maxLayers {
		return tooMuch("image has %d layers, allowed are %d", len(m.Layers), maxLayers)
	}
	if err := checkDocument(m.Config); err != nil {
		return fmt.Errorf("image configuration: %w", err)
	}
	for _, l := range m.Layers {
		if err := l.Digest.Validate(); err != nil {
			return fmt.Errorf("layer %q: %w: %w", l.Digest, err, errdefs.ErrInvalidArgument)
		}
		if l.Size <= 0 {
			return tooMuch("layer %s says it has %d bytes", l.Digest, l.Size)
		}
		if !images.IsLayerType(l.MediaType) {
			return fmt.Errorf("layer %s has type %q, which is not a file system layer: %w", l.Digest, l.MediaType, errdefs.ErrNotImplemented)
		}
	}
	return nil
}
