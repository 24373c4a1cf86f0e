package image

import (
	"context"
	"fmt"
)

// TotalSize is what all images take together, each layer counted once.
func (s *Service) TotalSize(ctx context.Context) (int64, error) {
	ctx = s.context(ctx)
	all, err := s.entries(ctx)
	if err != nil {
		return 0, err
	}
	z := s.newSizes()
	for _, e := range all {
		if err := z.image(ctx, e.target, e.variants); err != nil {
			return 0, fmt.Errorf("size of image %s: %w", e.id(), err)
		}
	}
	return z.total(), nil
}
