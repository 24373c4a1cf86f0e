package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Tag gives the image that src means one more name.
func (s *Service) Tag(ctx context.Context, src, dst string) error {
	ctx = s.context(ctx)
	n, err := parseName(dst)
	if err != nil {
		return err
	}
	if _, ok := n.(reference.Digested); ok {
		return fmt.Errorf("refusing to create a tag with a digest reference: %w", errdefs.ErrInvalidArgument)
	}
	if err := s.EnsureBuiltin(ctx, src); err != nil {
		return err
	}
	s.collect.RLock() // what was found must be there when it gets its name
	defer s.collect.RUnlock()
	f, err := s.find(ctx, src)
	if err != nil {
		return err
	}
	return s.setName(ctx, n.String(), f.target, nil)
}
