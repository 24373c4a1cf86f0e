package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	isle "isle/internal/container"
	"isle/internal/image"
	"isle/internal/server/servertest"
)

// Clients that leave in the middle. That nothing of the request is left is
// what serve checks at the end of each test.

// endless is a backend whose long calls end only when their context does, and
// say so.
type endless struct {
	*servertest.Backend
	begun, ended chan string
}

func newEndless() endless {
	return endless{fake(), make(chan string, 9), make(chan string, 9)}
}

func (b endless) until(ctx context.Context, what string) error {
	b.begun <- what
	<-ctx.Done()
	b.ended <- what
	return ctx.Err()
}

func (b endless) ImagePull(ctx context.Context, _ string, o image.PullOptions) error {
	o.Progress(jsonstream.Message{Status: "begun"})
	return b.until(ctx, "pull")
}

func (b endless) ImageLoad(ctx context.Context, r io.Reader, _ image.LoadOptions) error {
	b.begun <- "load"
	_, err := io.Copy(io.Discard, r)
	b.ended <- "load"
	return err
}

func (b endless) ContainerLogs(ctx context.Context, _ string, o isle.LogsOptions) error {
	_, _ = io.WriteString(o.Streams(false).Out, "begun")
	return b.until(ctx, "logs")
}

func (b endless) ContainerAttach(ctx context.Context, _ string, o isle.AttachOptions) error {
	if _, err := o.Streams(true); err != nil {
		return err
	}
	return b.until(ctx, "attach")
}

func (b endless) ExecInspect(context.Context, string) (container.ExecInspectResponse, error) {
	return container.ExecInspectResponse{}, nil
}

func (b endless) ExecStart(ctx context.Context, _ string, o isle.ExecStartOptions) error {
	if _, err := o.Streams(true); err != nil {
		return err
	}
	return b.until(ctx, "exec")
}

func (b endless) ContainerStats(ctx context.Context, _ string, _, _ bool, emit func(container.StatsResponse) error) error {
	if err := emit(container.StatsResponse{}); err != nil {
		return err
	}
	return b.until(ctx, "stats")
}

func (b endless) ContainerWait(ctx context.Context, _ string, _ container.WaitCondition) (<-chan isle.WaitResult, error) {
	context.AfterFunc(ctx, func() { b.ended <- "wait" })
	b.begun <- "wait"
	return make(chan isle.WaitResult), nil
}

var longCalls = []struct{ what, request string }{
	{"pull", "POST /images/create?fromImage=x&tag=1 HTTP/1.1\r\nHost: x\r\n\r\n"},
	{"load", "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"},
	{"logs", "GET /containers/x/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"},
	{"attach", "POST /containers/x/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
	{"exec", "POST /exec/x/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
	{"stats", "GET /containers/x/stats HTTP/1.1\r\nHost: x\r\n\r\n"},
	{"wait", "POST /containers/x/wait HTTP/1.1\r\nHost: x\r\n\r\n"},
}

func TestClientLeaves(t *testing.T) {
	for _, c := range longCalls {
		t.Run(c.what, func(t *testing.T) {
			b := newEndless()
			h := serve(t, b)
			conn := h.dial()
			_, _ = io.WriteString(conn, c.request)
			<-b.begun
			conn.Close()
			within(t, b.ended, c.what)
		})
	}
}

// A client that only closed its own side is still there.
func TestClientHalfLeaves(t *testing.T) {
	b := newEndless()
	h := serve(t, b)
	conn := h.dial()
	defer conn.Close()
	_, _ = io.WriteString(conn, longCalls[3].request)
	<-b.begun
	_ = conn.CloseWrite()
	select {
	case what := <-b.ended:
		t.Errorf("%s ended", what)
	case <-time.After(1200 * time.Millisecond): // more than two looks
	}
}

func TestServerStops(t *testing.T) {
	for _, c := range longCalls {
		if c.what == "load" {
			continue // a reader cannot be interrupted: it is cut off after the grace
		}
		t.Run(c.what, func(t *testing.T) {
			b := newEndless()
			h := serve(t, b)
			conn := h.dial()
			defer conn.Close()
			_, _ = io.WriteString(conn, c.request)
			<-b.begun
			h.stop()
			within(t, b.ended, c.what)
		})
	}
}

func TestEventsClientLeaves(t *testing.T) {
	b := fake()
	h := serve(t, b)
	resp := h.open("GET", "/events", "")
	resp.Body.Close() // the goroutine of the request must end without an event
}

func within(t *testing.T, ch <-chan string, want string) {
	t.Helper()
	select {
	case got := <-ch:
		if got != want {
			t.Errorf("%s ended, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s goes on", want)
	}
}

type panicking struct{ *servertest.Backend }

func (panicking) NetworkRemove(context.Context, string) error { panic("a bug") }

func (panicking) ContainerExport(_ context.Context, _ string, w io.Writer) error {
	_, _ = io.WriteString(w, strings.Repeat("half", 1<<14))
	panic("a bug")
}

func TestPanic(t *testing.T) {
	h := serve(t, panicking{fake()})
	if m := h.message(500, "DELETE", "/networks/x", ""); m != "internal error: see the log of isled" {
		t.Error(m)
	}
	resp := h.open("GET", "/containers/x/export", "")
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("half an answer looks like a whole one")
	}
	resp.Body.Close()
	h.want(200, "GET", "/_ping", "") // it goes on
	h.stop()
	if log := h.log.String(); strings.Count(log, "panic in a request") != 2 || !strings.Contains(log, "leave_test.go") {
		t.Error(log)
	}
}

type failingExport struct{ *servertest.Backend }

func (failingExport) ContainerExport(_ context.Context, ref string, w io.Writer) error {
	if ref == "late" {
		_, _ = io.WriteString(w, strings.Repeat("half", 1<<14))
	}
	return errors.New("disk on fire")
}

func TestErrorInTheMiddleOfAnArchive(t *testing.T) {
	h := serve(t, failingExport{fake()})
	if m := h.message(http.StatusInternalServerError, "GET", "/containers/early/export", ""); m != "disk on fire" {
		t.Error(m)
	}
	resp := h.open("GET", "/containers/late/export", "")
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes without an error", len(b))
	}
}
