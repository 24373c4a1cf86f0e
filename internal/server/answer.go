package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// handler is an endpoint. The error that it returns becomes the answer, or the
// end of one that has begun: see fail.
type handler func(a *answer, r *http.Request) error

// answer is the response to one request, and what is known of it.
type answer struct {
	http.ResponseWriter
	v        version // that the client asked for
	status   int     // 0: nothing has been sent
	hijacked bool
	err      error // of the handler
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// Flush sends what was written, and the header if nothing was.
func (a *answer) Flush() {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if f, ok := a.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Hijack takes the connection over.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take the connection over: %w", err)
	}
	a.hijacked = true
	return c, rw, nil
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// json answers with v.
func (a *answer) json(status int, v any) error {
	var b bytes.Buffer // first: an answer that cannot be encoded is an error
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	a.Header().Set("Content-Type", "application/json")
	a.WriteHeader(status)
	_, err := a.Write(b.Bytes())
	return gone(err)
}

// ok answers with v and 200.
func (a *answer) ok(v any) error { return a.json(http.StatusOK, v) }

// empty answers without a body.
func (a *answer) empty(status int) error {
	a.WriteHeader(status)
	return nil
}

// done answers 204 if there was no error.
func (a *answer) done(err error) error {
	if err != nil {
		return err
	}
	return a.empty(http.StatusNoContent)
}

// flushing sends every write at once.
type flushing struct{ a *answer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.a.Write(p)
	if err == nil {
		f.a.Flush()
	}
	return n, err
}

var _ io.Writer = flushing{}

// list is v, but never null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}
