package server

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/jsonstream"

	isle "isle/internal/container"
)

// mux writes several streams into one, each piece behind a header of 8 bytes:
// the stream's number, three zeros, the length. See package stdcopy.
type mux struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

type muxed struct {
	m    *mux
	kind stdcopy.StdType
}

func (m *mux) stream(kind stdcopy.StdType) io.Writer { return muxed{m, kind} }

func (s muxed) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.buf = append(s.m.buf[:0], byte(s.kind), 0, 0, 0)
	s.m.buf = binary.BigEndian.AppendUint32(s.m.buf, uint32(len(p)))
	s.m.buf = append(s.m.buf, p...)
	if _, err := s.m.w.Write(s.m.buf); err != nil {
		return 0, gone(err)
	}
	return len(p), nil
}

// serial lets several writers share one.
type serial struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *serial) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.w.Write(p)
	return n, gone(err)
}

// output is the server's side of a conversation, on w: raw with a terminal,
// else stdout and stderr in one stream.
type output struct {
	tty bool
	m   *mux
	raw *serial
}

func newOutput(w io.Writer, tty bool) *output {
	if tty {
		return &output{tty: true, raw: &serial{w: w}}
	}
	return &output{m: &mux{w: w}}
}

func (o *output) streams(in io.Reader) isle.Streams {
	if o.tty {
		return isle.Streams{In: in, Out: o.raw, Err: o.raw}
	}
	return isle.Streams{In: in, Out: o.m.stream(stdcopy.Stdout), Err: o.m.stream(stdcopy.Stderr)}
}

// fail tells the client of an error in the middle of a stream, where no status
// can be sent any more: a frame that clients turn into an error, or plain text.
func (o *output) fail(err error) {
	text := "error from daemon in stream: " + message(err) + "\r\n"
	if !o.tty {
		_, _ = o.m.stream(stdcopy.Systemerr).Write([]byte(message(err)))
		return
	}
	_, _ = io.WriteString(o.raw, text)
}

// streamType is the media type of an answer that carries an output.
func streamType(v version, tty bool) string {
	if tty || v < 42 {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// progress is an answer of JSON messages, one a line, that begins with the
// first of them. Until then an error is still a status.
type progress struct {
	a   *answer
	err error // of writing
}

func (p *progress) send(m jsonstream.Message) { p.write(m) }

func (p *progress) write(m any) {
	if p.err != nil {
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		p.err = fmt.Errorf("encode a message: %w", err)
		return
	}
	p.begin()
	_, err = flushing{p.a}.Write(append(b, '\r', '\n'))
	p.err = gone(err)
}

func (p *progress) begin() {
	if p.a.status == 0 {
		p.a.Header().Set("Content-Type", types.MediaTypeJSON)
		p.a.WriteHeader(http.StatusOK)
	}
}

// errorMessage is how an operation that has begun to answer says that it
// failed. Old clients look for "error".
type errorMessage struct {
	Detail *jsonstream.Error `json:"errorDetail"`
	Error  string            `json:"error"`
}

// end is the handler's result for the operation's result.
func (p *progress) end(err error) error {
	switch {
	case p.err != nil:
		return errors.Join(p.err, err)
	case err != nil && p.a.status == 0:
		return err
	case err != nil:
		p.write(errorMessage{&jsonstream.Error{Message: message(err)}, message(err)})
		return p.err
	}
	p.begin()
	p.a.Flush()
	return nil
}

// lazy is an answer that is an archive: its header goes out with the first
// byte, so that an error before is a status.
type lazy struct {
	a    *answer
	kind string
}

func (l lazy) Write(b []byte) (int, error) {
	if l.a.status == 0 {
		l.a.Header().Set("Content-Type", l.kind)
	}
	n, err := l.a.Write(b)
	return n, gone(err)
}

const tarType = "application/x-tar"

// upload is the body of r for a backend to read. What goes wrong with it is the
// connection's fault, and nobody is left to be told.
type upload struct{ io.ReadCloser }

func (u upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, gone(err)
	}
	return n, err
}
