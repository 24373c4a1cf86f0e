package server

import (
	"errors"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	isle "isle/internal/container"
)

// execBody is container.ExecCreateRequest as clients write it.
type execBody struct {
	container.ExecCreateRequest
	Cmd words
}

func (s *Server) execCreate(a *answer, r *http.Request) error {
	var body execBody
	if err := require(a, r, &body); err != nil {
		return err
	}
	req := body.ExecCreateRequest
	req.Cmd = body.Cmd
	if len(req.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	if a.v < 42 {
		req.ConsoleSize = nil
	}
	if a.v < 35 {
		req.WorkingDir = ""
	}
	if a.v < 25 {
		req.Env = nil
	}
	execID, err := s.Backend.ExecCreate(r.Context(), id(r), req)
	if err != nil {
		return err
	}
	return a.json(http.StatusCreated, common.IDResponse{ID: execID})
}

func (s *Server) execStart(a *answer, r *http.Request) error {
	var req container.ExecStartRequest
	if err := decode(a, r, &req); err != nil {
		return err
	}
	if a.v < 42 {
		req.ConsoleSize = nil
	}
	if req.ConsoleSize != nil && !req.Tty {
		return invalid("console size is only supported when TTY is enabled")
	}
	opts := isle.ExecStartOptions{Detach: req.Detach, Tty: req.Tty, ConsoleSize: req.ConsoleSize}
	if req.Detach {
		if err := s.Backend.ExecStart(r.Context(), id(r), opts); err != nil {
			return err
		}
		return a.empty(http.StatusOK)
	}
	return s.execConverse(a, r, opts)
}

// execConverse starts an exec session on this connection. That there is no
// such session, or that it cannot start now, is a status; that its program
// cannot be started is text in the stream, where Docker's clients expect it.
func (s *Server) execConverse(a *answer, r *http.Request, opts isle.ExecStartOptions) error {
	if _, err := s.Backend.ExecInspect(r.Context(), id(r)); err != nil {
		return err
	}
	x := s.session(a, r)
	var out io.Writer
	opts.Streams = func(tty bool) (isle.Streams, error) {
		st, err := x.open(tty)
		out = st.Out
		return st, err
	}
	err := s.Backend.ExecStart(x.ctx, id(r), opts)
	if err == nil || errors.Is(err, errGone) || x.ctx.Err() != nil {
		return x.finish(err)
	}
	if x.conn == nil {
		if errdefs.IsConflict(err) || errdefs.IsFailedPrecondition(err) {
			return x.finish(err)
		}
		if _, oerr := opts.Streams(opts.Tty); oerr != nil {
			return x.finish(oerr)
		}
	}
	s.Log.Debug("exec", "id", id(r), "error", err)
	_, _ = io.WriteString(out, message(err)+"\r\n")
	return x.finish(nil)
}

func (s *Server) execInspect(a *answer, r *http.Request) error {
	e, err := s.Backend.ExecInspect(r.Context(), id(r))
	if err != nil {
		return err
	}
	return a.ok(e)
}

func (s *Server) execResize(a *answer, r *http.Request) error {
	h, w, err := terminalSize(r)
	if err != nil {
		return err
	}
	if err := s.Backend.ExecResize(r.Context(), id(r), h, w); err != nil {
		return err
	}
	return a.empty(http.StatusOK)
}
