package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"

	"isle/internal/sentence"
)

// This file is the only place where classes of errors become statuses.

// classes are in the order in which they are tried for errors that carry their
// class as a method. said are the words of which one must stand in an error's
// text before its class's name is left out of it; nil: it always is.
var classes = []struct {
	class  error
	is     func(error) bool
	status int
	said   []string
}{
	{errdefs.ErrNotFound, errdefs.IsNotFound, http.StatusNotFound, []string{"no such", "not found", "not find", "not exist", "denied", "unknown", "there is no", "does not ", "is not ", "not in ", "has no "}},
	{errdefs.ErrInvalidArgument, errdefs.IsInvalidArgument, http.StatusBadRequest, nil},
	{errdefs.ErrOutOfRange, errdefs.IsOutOfRange, http.StatusBadRequest, nil},
	{errdefs.ErrConflict, errdefs.IsConflict, http.StatusConflict, nil},
	{errdefs.ErrAlreadyExists, errdefs.IsAlreadyExists, http.StatusConflict, []string{"already", "exists", "in use", "conflict"}},
	{errdefs.ErrFailedPrecondition, errdefs.IsFailedPrecondition, http.StatusConflict, nil},
	{errdefs.ErrAborted, errdefs.IsAborted, http.StatusConflict, nil},
	{errdefs.ErrNotModified, errdefs.IsNotModified, http.StatusNotModified, nil},
	{errdefs.ErrUnauthenticated, errdefs.IsUnauthorized, http.StatusUnauthorized, []string{"unauthorized", "authenti", "password", "credential", "log in", "login", "denied"}},
	{errdefs.ErrPermissionDenied, errdefs.IsPermissionDenied, http.StatusForbidden, []string{"denied", "permission", "permitted", "forbidden", "allowed", "overlaps"}},
	{errdefs.ErrNotImplemented, errdefs.IsNotImplemented, http.StatusNotImplemented, []string{"not", "no ", "none", "only"}},
	{errdefs.ErrUnavailable, errdefs.IsUnavailable, http.StatusServiceUnavailable, []string{"not", "gone", "no ", "un", "refused"}},
	{errdefs.ErrResourceExhausted, errdefs.IsResourceExhausted, http.StatusInsufficientStorage, []string{"full", "no space", "no free", "too many", "exhausted", "left"}},
	{errdefs.ErrDataLoss, errdefs.IsDataLoss, http.StatusInternalServerError, nil},
	{errdefs.ErrInternal, errdefs.IsInternal, http.StatusInternalServerError, nil},
	{context.DeadlineExceeded, errdefs.IsDeadlineExceeded, http.StatusGatewayTimeout, []string{}},
	{context.Canceled, errdefs.IsCanceled, statusClosed, []string{}},
}

// statusClosed is what the log shows when the client has left.
const statusClosed = 499

var (
	errNoPage = fmt.Errorf("page not found: %w", errdefs.ErrNotFound)
	errSwarm  = fmt.Errorf(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.: %w`, errdefs.ErrUnavailable) //nolint:staticcheck // Docker's text
)

// errGone marks a failed write: there is nobody left to tell.
var errGone = errors.New("the client has left")

func gone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

func notImplemented(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrNotImplemented)
}

// statusOf is the status of the outermost class in err: what a caller said of
// an error holds before what the error's cause was.
func statusOf(err error) int {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	for level := []error{err}; len(level) > 0; {
		var below []error
		for _, e := range level {
			for _, c := range classes {
				if e == c.class { //nolint:errorlint // the node itself, not what it wraps
					return c.status
				}
			}
			below = append(below, children(e)...)
		}
		level = below
	}
	for _, c := range classes { // those that carry their class as a method
		if c.is(err) {
			return c.status
		}
	}
	return http.StatusInternalServerError
}

func children(err error) []error {
	switch e := err.(type) { //nolint:errorlint // walks the tree by itself
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	case interface{ Unwrap() error }:
		if u := e.Unwrap(); u != nil {
			return []error{u}
		}
	}
	return nil
}

// message is what a person reads: the text of err without the names of
// classes at its end or before its hint. Clients match Docker's sentences, which
// have none; but where the name is all that says what went wrong, it stays.
func message(err error) string {
	text, hint := err.Error(), ""
	if i := strings.LastIndex(text, " (hint: "); i >= 0 && strings.HasSuffix(text, ")") {
		text, hint = text[:i], text[i:]
	}
	for cut, ok := withoutClass(text); ok; cut, ok = withoutClass(text) {
		text = cut
	}
	if kernels := ": " + syscall.EINVAL.Error(); errors.Is(err, syscall.EINVAL) && strings.Contains(err.Error(), text+kernels) {
		text += kernels // it reads as a class does, and is the reason
	}
	return sentence.Of(text) + hint
}

func withoutClass(text string) (string, bool) {
	for _, c := range classes {
		cut, ok := strings.CutSuffix(text, ": "+c.class.Error())
		if ok && (c.said == nil || says(cut, c.said)) {
			return cut, true
		}
	}
	return text, false
}

func says(text string, words []string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// fail answers with an error, or ends an answer that has begun.
func (s *Server) fail(a *answer, r *http.Request, err error) {
	switch {
	case a.hijacked:
		s.Log.Debug("stream ended", "path", r.URL.Path, "error", err)
		return
	case errors.Is(err, errGone), r.Context().Err() != nil && errors.Is(err, context.Canceled):
		s.Log.Debug("the client left", "path", r.URL.Path, "error", err)
		if a.status == 0 {
			a.status = statusClosed
		}
		panic(http.ErrAbortHandler)
	case a.status != 0:
		s.Log.Warn("answer broken off", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	status := statusOf(err)
	if status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable { // that one is for who asks for a swarm
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	for _, h := range []string{"Content-Type", "Content-Length", "Content-Disposition"} {
		a.Header().Del(h)
	}
	if status == http.StatusNotModified {
		a.WriteHeader(status)
		return
	}
	if err := a.json(status, common.ErrorResponse{Message: message(err)}); err != nil {
		s.Log.Debug("the client left", "path", r.URL.Path, "error", err)
	}
}
