package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resumeLease holds what interrupted downloads left, for resumeFor after the
// last interruption.
const (
	resumeLease = "isle-resume"
	resumeFor   = 24 * time.Hour
)

// keepOrAbort decides about the layers of a pull that failed with why: after
// an interruption they are kept, else the incomplete ones are thrown away, for
// they may be what is wrong.
func (j *pull) keepOrAbort(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	j.s.collect.RLock() // the lease is away for a moment
	defer j.s.collect.RUnlock()
	keep := interrupted(why)
	if keep && len(j.layers) > 0 {
		if err := j.s.renewResume(ctx); err != nil {
			return err
		}
	}
	var all error
	for _, l := range j.layers {
		var err error
		if keep {
			err = j.s.keepPartial(ctx, l)
		} else {
			err = j.s.abort(ctx, l)
		}
		all = errors.Join(all, err)
	}
	return all
}

func (s *Service) abort(ctx context.Context, l ocispec.Descriptor) error {
	err := s.content.Abort(ctx, remotes.MakeRefKey(ctx, l))
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("partial layer %s: %w", l.Digest, err)
	}
	return nil
}

// renewResume makes the lease anew with a later end, keeping what it holds.
func (s *Service) renewResume(ctx context.Context) error {
	old := leases.Lease{ID: resumeLease}
	held, err := s.leases.ListResources(ctx, old)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("lease %s: %w", resumeLease, err)
	}
	if err := s.leases.Delete(ctx, old); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("lease %s: %w", resumeLease, err)
	}
	l, err := s.leases.Create(ctx, leases.WithID(resumeLease), leases.WithExpiration(resumeFor))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("lease %s: %w", resumeLease, err)
	}
	l.ID = resumeLease
	for _, r := range held {
		if err := s.leases.AddResource(ctx, l, r); err != nil {
			return fmt.Errorf("lease %s: %w", resumeLease, err)
		}
	}
	return nil
}

// keepPartial keeps what has arrived of a layer, all or part.
func (s *Service) keepPartial(ctx context.Context, l ocispec.Descriptor) error {
	r := leases.Resource{Type: "ingests", ID: remotes.MakeRefKey(ctx, l)}
	if s.has(ctx, l.Digest) {
		r = leases.Resource{Type: "content", ID: l.Digest.String()}
	} else if st, err := s.content.Status(ctx, r.ID); errdefs.IsNotFound(err) || err == nil && st.Offset == 0 {
		return nil
	}
	if err := s.leases.AddResource(ctx, leases.Lease{ID: resumeLease}, r); err != nil {
		return fmt.Errorf("partial layer %s: %w", l.Digest, err)
	}
	return nil
}

// forgetPartial is for layers that an image holds now.
func (s *Service) forgetPartial(ctx context.Context, layers []ocispec.Descriptor) error {
	held, err := s.leases.ListResources(ctx, leases.Lease{ID: resumeLease})
	if errdefs.IsNotFound(err) || err == nil && len(held) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lease %s: %w", resumeLease, err)
	}
	for _, l := range layers {
		for _, r := range []leases.Resource{{Type: "ingests", ID: remotes.MakeRefKey(ctx, l)}, {Type: "content", ID: l.Digest.String()}} {
			if err := s.leases.DeleteResource(ctx, leases.Lease{ID: resumeLease}, r); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("lease %s: %w", resumeLease, err)
			}
		}
	}
	return nil
}
