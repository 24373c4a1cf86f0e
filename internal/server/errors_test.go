package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

func TestStatusOf(t *testing.T) {
	_, notANumber := strconv.Atoi("abc")
	notFound := fmt.Errorf("network app not found: %w", errdefs.ErrNotFound)
	for _, c := range []struct {
		err  error
		want int
		text string
	}{
		{errors.New("plain"), 500, "plain"},
		{notFound, 404, "network app not found"},
		{fmt.Errorf("start web: %w", notFound), 404, "start web: network app not found"},
		// What the caller says holds before the cause.
		{fmt.Errorf("web needs app: %w: %w", notFound, errdefs.ErrConflict), 409, "web needs app: network app not found"},
		{fmt.Errorf("%w: %w", errdefs.ErrUnavailable, errors.New("x")), 503, "unavailable: x"},
		{errors.Join(errors.New("a"), notFound), 404, "a\nnetwork app not found"},
		{fmt.Errorf("x: %w", errdefs.ErrInvalidArgument), 400, "x"},
		{fmt.Errorf("x: %w", errdefs.ErrOutOfRange), 400, "x"},
		{fmt.Errorf("x: %w", errdefs.ErrConflict), 409, "x"},
		{fmt.Errorf("x is in use: %w", errdefs.ErrAlreadyExists), 409, "x is in use"},
		{fmt.Errorf("x: %w", errdefs.ErrFailedPrecondition), 409, "x"},
		{fmt.Errorf("x: %w", errdefs.ErrAborted), 409, "x"},
		{fmt.Errorf("x: %w", errdefs.ErrNotModified), 304, "x"},
		{fmt.Errorf("wrong password: %w", errdefs.ErrUnauthenticated), 401, "wrong password"},
		{fmt.Errorf("pull access denied: %w", errdefs.ErrPermissionDenied), 403, "pull access denied"},
		{fmt.Errorf("x does not do that: %w", errdefs.ErrNotImplemented), 501, "x does not do that"},
		{fmt.Errorf("the shim is gone: %w", errdefs.ErrUnavailable), 503, "the shim is gone"},
		{fmt.Errorf("the disk is full: %w", errdefs.ErrResourceExhausted), 507, "the disk is full"},
		{fmt.Errorf("x: %w", errdefs.ErrDataLoss), 500, "x"},
		{fmt.Errorf("x: %w", errdefs.ErrInternal), 500, "x"},
		{fmt.Errorf("subnet x overlaps with y of this host: %w (hint: choose another)", errdefs.ErrPermissionDenied), 403, "subnet x overlaps with y of this host (hint: choose another)"},
		{fmt.Errorf("write x: %w: %w", syscall.EINVAL, errdefs.ErrInvalidArgument), 400, "write x: invalid argument"},
		{fmt.Errorf("write x: %w", syscall.EINVAL), 500, "write x: invalid argument"},
		{fmt.Errorf("container web does not publish 80/tcp: %w", errdefs.ErrNotFound), 404, "container web does not publish 80/tcp"},
		{fmt.Errorf("option x: %w: %w", strconv.ErrSyntax, errdefs.ErrInvalidArgument), 400, "option x: invalid syntax"},
		{invalid("option mtu: %w", notANumber), 400, `option mtu: "abc" is not a number`},
		// Where the class is all that says what went wrong, it stays.
		{fmt.Errorf("failed to resolve reference: reg.test/x:1: %w", errdefs.ErrNotFound), 404, "failed to resolve reference: reg.test/x:1: not found"},
		{fmt.Errorf("open /x: %w", errdefs.ErrPermissionDenied), 403, "open /x: permission denied"},
		{fmt.Errorf("registry: %w", errdefs.ErrUnavailable), 503, "registry: unavailable"},
		{fmt.Errorf("lease x: %w", errdefs.ErrAlreadyExists), 409, "lease x: already exists"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 504, "x: context deadline exceeded"},
		{fmt.Errorf("x: %w", context.Canceled), 499, "x: context canceled"},
		{fmt.Errorf("x: %w", &http.MaxBytesError{}), 413, "x: http: request body too large"},
		{container.ValidateRestartPolicy(container.RestartPolicy{Name: "often"}), 400, "invalid restart policy: unknown policy 'often'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
	} {
		if got := statusOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
		if got := message(c.err); got != c.text {
			t.Errorf("%q, want %q", got, c.text)
		}
	}
}

func TestTruth(t *testing.T) {
	for s, want := range map[string]bool{"": false, "0": false, "no": false, "False": false, "none": false, " 0 ": false, "1": true, "true": true, "yes": true, "2": true} {
		if truth(s) != want {
			t.Errorf("%q is %v", s, !want)
		}
	}
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]int64{
		"1": 1e9, "1.5": 15e8, "1.000000001": 1e9 + 1, "1.0000000019": 1e9 + 1, "0": 0, "-1.5": -15e8, "1970-01-01T00:00:01Z": 1e9, "1970-01-01T00:00:01.25Z": 125e7,
	} {
		if got, err := parseTime(s); err != nil || got.UnixNano() != want {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"now", "1.x", "1.-5", ".", "1h", "1e9"} {
		if got, err := parseTime(s); err == nil {
			t.Errorf("%s: %v", s, got)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]string{
		"linux/arm64/v8": "linux arm64 v8", "linux/amd64": "linux amd64 ", `{"os":"linux","architecture":"arm","variant":"v7"}`: "linux arm v7", "arm64": "linux arm64 ",
	} {
		p, err := parsePlatform(s)
		if got := fmt.Sprint(p.OS, " ", p.Architecture, " ", p.Variant); err != nil || got != want && got != want+"v8" {
			t.Errorf("%s: %q %v", s, got, err)
		}
	}
	for _, s := range []string{"{", `{"os":"linux"}`, `{"os":1}`, "a/b/c/d/e", "nonsense"} {
		if p, err := parsePlatform(s); err == nil {
			t.Errorf("%s: %v", s, p)
		}
	}
}

func TestSplitName(t *testing.T) {
	for path, want := range map[string]string{
		"/images/a/json":              "a json",
		"/images/a/b/c:1/json":        "a/b/c:1 json",
		"/images/a%2Fb%3A1/history":   "a/b:1 history",
		"/images/json/json":           "json json",
		"/images/a@sha256:12/get":     "a@sha256:12 get",
		"/images/sp%20ace/x/push/tag": "sp ace/x/push tag",
	} {
		if name, verb, ok := splitName(path, "/images/"); !ok || name+" "+verb != want {
			t.Errorf("%s: %q %q %v", path, name, verb, ok)
		}
	}
	for _, path := range []string{"/images/json", "/images/", "/images//json"} {
		if name, _, ok := splitName(path, "/images/"); ok {
			t.Errorf("%s: %q", path, name)
		}
	}
}
