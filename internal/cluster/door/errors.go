package door

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

var errBusy = classed("too many tries, wait some seconds", errdefs.ErrResourceExhausted)

func classed(text string, class error) error { return fmt.Errorf("%s: %w", text, class) }

// classes are those that the other side is told; others are "unknown" there.
var classes = []struct {
	name   string
	class  error
	is     func(error) bool
	status int
}{
	{"invalid", errdefs.ErrInvalidArgument, errdefs.IsInvalidArgument, http.StatusBadRequest},
	{"unauthenticated", errdefs.ErrUnauthenticated, errdefs.IsUnauthorized, http.StatusUnauthorized},
	{"denied", errdefs.ErrPermissionDenied, errdefs.IsPermissionDenied, http.StatusForbidden},
	{"exists", errdefs.ErrAlreadyExists, errdefs.IsAlreadyExists, http.StatusConflict},
	{"conflict", errdefs.ErrConflict, errdefs.IsConflict, http.StatusConflict},
	{"busy", errdefs.ErrResourceExhausted, errdefs.IsResourceExhausted, http.StatusTooManyRequests},
	{"again", errdefs.ErrAborted, errdefs.IsAborted, http.StatusConflict},
	{"unavailable", errdefs.ErrUnavailable, errdefs.IsUnavailable, http.StatusServiceUnavailable},
}

type failure struct{ Class, Message string }

func refuse(w http.ResponseWriter, err error) {
	f, status := failure{"unknown", err.Error()}, http.StatusInternalServerError
	for _, c := range classes {
		if c.is(err) {
			f.Class, status = c.name, c.status
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(f) // the caller has left when this fails
}

// remoteError is what the other side said.
type remoteError struct {
	text  string
	class error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.class }

func (f failure) err() error {
	for _, c := range classes {
		if c.name == f.Class {
			return &remoteError{f.Message, c.class}
		}
	}
	return &remoteError{f.Message, errdefs.ErrUnknown}
}
