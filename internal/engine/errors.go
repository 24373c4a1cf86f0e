package engine

import (
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/container"
	"isle/internal/ids"
)

// classed is an error whose whole text is Docker's, with a class behind it:
// clients match these texts, so nothing may be appended. The class may also be
// the error that the text was made of.
type classed struct {
	text  string
	class error
}

func (e *classed) Error() string { return e.text }
func (e *classed) Unwrap() error { return e.class }

func invalid(format string, args ...any) error {
	return &classed{fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument}
}

func conflict(format string, args ...any) error {
	return &classed{fmt.Sprintf(format, args...), errdefs.ErrConflict}
}

func notFound(format string, args ...any) error {
	return &classed{fmt.Sprintf(format, args...), errdefs.ErrNotFound}
}

func forbidden(format string, args ...any) error {
	return &classed{fmt.Sprintf(format, args...), errdefs.ErrPermissionDenied}
}

func notModified(format string, args ...any) error {
	return &classed{fmt.Sprintf(format, args...), errdefs.ErrNotModified}
}

func notRunning(rec container.Record) error {
	return conflict("container %s is not running", rec.Name)
}

// about says which container err is about, and keeps its class.
func about(rec container.Record, doing string, err error) error {
	return fmt.Errorf("%s container %s: %w", doing, ids.Short(rec.ID), err)
}
