package server

import (
	"bufio"
	"io"
	"net/http"

	isle "isle/internal/container"
)

func attachOptions(r *http.Request) (isle.AttachOptions, error) {
	q := queryOf(r)
	opts := isle.AttachOptions{
		Stdin: q.bool("stdin"), Stdout: q.bool("stdout"), Stderr: q.bool("stderr"),
		Stream: q.bool("stream"), Logs: q.bool("logs"), DetachKeys: q.Get("detachKeys"),
	}
	return opts, q.err
}

func (s *Server) containerAttach(a *answer, r *http.Request) error {
	opts, err := attachOptions(r)
	if err != nil {
		return err
	}
	x := s.session(a, r)
	opts.Streams = func(tty bool) (isle.Streams, error) {
		st, err := x.open(tty)
		if !opts.Stdin {
			st.In = nil
		}
		return st, err
	}
	return x.finish(s.Backend.ContainerAttach(x.ctx, id(r), opts))
}

// containerAttachWS is attach over a WebSocket, for browsers. It is raw: both
// outputs share one stream, as in Docker.
func (s *Server) containerAttachWS(a *answer, r *http.Request) error {
	opts, err := attachOptions(r)
	if err != nil {
		return err
	}
	if a.v < 42 { // they had no effect
		opts.Stdin, opts.Stdout, opts.Stderr = true, true, true
	}
	opts.Stream = true
	if err := upgradable(r); err != nil {
		return err
	}
	x := s.session(a, r)
	opts.Streams = func(bool) (isle.Streams, error) {
		st, err := x.openWS()
		if !opts.Stdin {
			st.In = nil
		}
		return st, err
	}
	return x.finish(s.Backend.ContainerAttach(x.ctx, id(r), opts))
}

// openWS is open for a WebSocket.
func (x *session) openWS() (isle.Streams, error) {
	in, err := x.take()
	if err != nil {
		return isle.Streams{}, err
	}
	x.a.status = http.StatusSwitchingProtocols
	if _, err := io.WriteString(x.conn, wsHandshake(x.r)); err != nil {
		return isle.Streams{}, gone(err)
	}
	ws := &webSocket{kind: wsBinary, r: bufio.NewReader(in), w: x.conn}
	if x.a.v < 28 {
		ws.kind = wsText
	}
	x.ws = ws
	x.out = newOutput(ws, true)
	return x.out.streams(ws), nil
}

func (s *Server) containerLogs(a *answer, r *http.Request) error {
	opts, err := logsOptions(r)
	if err != nil {
		return err
	}
	var out *output
	opts.Streams = func(tty bool) isle.Streams {
		a.Header().Set("Content-Type", streamType(a.v, tty))
		a.Flush()
		out = newOutput(flushing{a}, tty)
		return out.streams(nil)
	}
	err = s.Backend.ContainerLogs(r.Context(), id(r), opts)
	if err != nil && out != nil && r.Context().Err() == nil {
		out.fail(err)
		return nil
	}
	return err
}

func logsOptions(r *http.Request) (isle.LogsOptions, error) {
	q := queryOf(r)
	opts := isle.LogsOptions{
		Stdout: q.bool("stdout"), Stderr: q.bool("stderr"), Follow: q.bool("follow"), Timestamps: q.bool("timestamps"),
		Details: q.bool("details"), Since: q.time("since"), Until: q.time("until"), Tail: -1,
	}
	if t := q.Get("tail"); t != "" && t != "all" {
		opts.Tail = q.int("tail", -1)
	}
	if q.err == nil && !opts.Stdout && !opts.Stderr {
		q.bad("Bad parameters: you must choose at least one stream")
	}
	return opts, q.err
}
