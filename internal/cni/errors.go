package cni

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Code is what a runtime decides by.
type Code uint

// Codes of the specification, and from 100 on our own.
const (
	CodeVersion     Code = 1  // incompatible CNI version
	CodeUnknown     Code = 3  // the container is not there: nothing is to be cleaned up
	CodeEnvironment Code = 4  // an environment variable is missing or wrong
	CodeIO          Code = 5  // the configuration could not be read
	CodeDecode      Code = 6  // the configuration could not be decoded
	CodeConfig      Code = 7  // it makes no sense
	CodeAgain       Code = 11 // try again later
	CodeUnavailable Code = 50 // ADD cannot be served
	CodeConflict    Code = 100
	CodeCheck       Code = 101 // what CHECK found is not as ADD left it
	CodeInternal    Code = 999
)

// Failure is an error as it is written to standard output.
type Failure struct {
	CNIVersion string `json:"cniVersion"`
	Code       Code   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

// coded is an error whose code is known where it arises. Its class is for the status.
type coded struct {
	code Code
	error
}

func (e coded) Unwrap() error { return e.error }

var classOf = map[Code]error{CodeUnknown: errdefs.ErrNotFound, CodeAgain: errdefs.ErrUnavailable, CodeUnavailable: errdefs.ErrUnavailable,
	CodeConflict: errdefs.ErrConflict, CodeCheck: errdefs.ErrFailedPrecondition, CodeInternal: errdefs.ErrInternal}

// failf makes an error with a code.
func failf(code Code, format string, args ...any) error {
	class, ok := classOf[code]
	if !ok {
		class = errdefs.ErrInvalidArgument
	}
	return coded{code, fmt.Errorf("%w: %w", fmt.Errorf(format, args...), class)}
}

// With gives an error a code.
func With(code Code, err error) error { return coded{code, err} }

// CodeOf is the code of an error: its own, or that of its class.
func CodeOf(err error) Code {
	var c coded
	switch {
	case errors.As(err, &c):
		return c.code
	case errdefs.IsUnavailable(err), errdefs.IsResourceExhausted(err), errdefs.IsDeadlineExceeded(err), errdefs.IsCanceled(err):
		return CodeAgain
	case errdefs.IsInvalidArgument(err), errdefs.IsNotFound(err), errdefs.IsPermissionDenied(err), errdefs.IsNotImplemented(err):
		return CodeConfig
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return CodeConflict
	}
	return CodeInternal
}
