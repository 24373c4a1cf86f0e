package etcd

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrLeaseGone: nothing can be put under the Store's lease any more.
var ErrLeaseGone = fmt.Errorf("the lease is gone: %w", errdefs.ErrFailedPrecondition)

// classify gives what the client says one of our classes. What ctx's owner did is
// theirs; what took too long is Unavailable.
func classify(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		return errCompacted
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("etcd: %w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("etcd: %w: %w", err, ErrLeaseGone)
	}
	switch codeOf(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("etcd refuses this host: %w: %w", err, errdefs.ErrPermissionDenied)
	case codes.ResourceExhausted:
		return fmt.Errorf("etcd is full: %w: %w", err, errdefs.ErrResourceExhausted)
	}
	return fmt.Errorf("etcd cannot be reached or has no quorum: %w: %w", err, errdefs.ErrUnavailable)
}

func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}
