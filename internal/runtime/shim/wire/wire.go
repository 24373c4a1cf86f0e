// Package wire is the protocol between isled and isle-shim: the messages, and
// how they are framed. It has no behaviour, so that both sides can import it;
// what the messages do is told in package shim.
//
// The types look like those of package runtime and are not the same: these are
// frozen by Version, those follow the engine. Fields may be added (the other
// side ignores what it does not know); anything else needs a new version.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The versions that this build speaks.
const (
	Version    = 1
	MinVersion = 1
)

// MaxFrame bounds a message, MaxData the payload of a stream frame.
const (
	MaxFrame = 8 << 20
	MaxData  = 32 << 10
)

// The operations. See the table in package shim.
const (
	OpHello  = "hello"
	OpCreate = "create"
	OpStart  = "start"
	OpExec   = "exec"
	OpKill   = "kill"
	OpPause  = "pause"
	OpResume = "resume"
	OpUpdate = "update"
	OpDelete = "delete"
	OpResize = "resize"
	OpPids   = "pids"
	OpList   = "list"
	OpAck    = "ack"
	OpExits  = "exits"
	OpAttach = "attach"
)

// Request is the first frame on a connection, or a later one.
type Request struct {
	Version int             `json:"version"`
	Op      string          `json:"op"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Response answers a Request.
type Response struct {
	Error *Error          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// The classes of errors.
const (
	Invalid      = "invalid"
	NotFound     = "not-found"
	Conflict     = "conflict"
	Precondition = "precondition"
	Unsupported  = "unsupported"
	Unknown      = "unknown"
)

// Error is an error that crosses the wire.
type Error struct {
	Class string `json:"class"`
	Text  string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(class, format string, args ...any) *Error {
	return &Error{Class: class, Text: fmt.Sprintf(format, args...)}
}

// AsError is err as it crosses the wire.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	class := Unknown
	if e, ok := errors.AsType[*Error](err); ok {
		class = e.Class
	}
	return &Error{Class: class, Text: err.Error()}
}

// Hello is the answer to OpHello.
type Hello struct {
	Min     int    `json:"min"`
	Max     int    `json:"max"`
	Pid     int    `json:"pid"`
	Release string `json:"release"`
}

// Proc names a process: a container's first one or an exec session.
type Proc struct {
	ID   string `json:"id"`
	Exec string `json:"exec,omitempty"`
}

// Mount is as for mount(2), options as in fstab.
type Mount struct {
	Type    string   `json:"type,omitempty"`
	Source  string   `json:"source"`
	Options []string `json:"options,omitempty"`
}

// Stdio says what a process is connected to.
type Stdio struct {
	Terminal   bool   `json:"terminal,omitempty"`
	Stdin      bool   `json:"stdin,omitempty"`
	CloseStdin bool   `json:"closeStdin,omitempty"`
	Height     uint16 `json:"height,omitempty"`
	Width      uint16 `json:"width,omitempty"`
}

// Log is where output is kept.
type Log struct {
	Path     string            `json:"path,omitempty"`
	MaxSize  int64             `json:"maxSize,omitempty"`
	MaxFile  int               `json:"maxFile,omitempty"`
	Attrs    map[string]string `json:"attrs,omitempty"`
	Compress bool              `json:"compress,omitempty"`
}

// Runtime is an OCI runtime program.
type Runtime struct {
	Name          string   `json:"name"`
	Path          string   `json:"path"`
	Args          []string `json:"args,omitempty"`
	Root          string   `json:"root"`
	SystemdCgroup bool     `json:"systemdCgroup,omitempty"`
	StartFIFO     bool     `json:"startFIFO,omitempty"`
}

// Create is the body of OpCreate; the answer is Started.
type Create struct {
	ID         string  `json:"id"`
	Bundle     string  `json:"bundle"`
	Runtime    Runtime `json:"runtime"`
	Rootfs     []Mount `json:"rootfs,omitempty"`
	Stdio      Stdio   `json:"stdio"`
	Log        Log     `json:"log"`
	KeepShared bool    `json:"keepShared,omitempty"`
	CgroupPath string  `json:"cgroupPath,omitempty"`
}

// Exec is the body of OpExec; the answer is Started.
type Exec struct {
	Proc    Proc            `json:"proc"`
	Process json.RawMessage `json:"process"` // of the runtime specification
	Stdio   Stdio           `json:"stdio"`
}

// Started answers OpCreate and OpExec.
type Started struct {
	Pid int `json:"pid"`
}

// Kill is the body of OpKill.
type Kill struct {
	Proc   Proc `json:"proc"`
	Signal int  `json:"signal"`
	All    bool `json:"all,omitempty"`
}

// Update is the body of OpUpdate.
type Update struct {
	ID        string          `json:"id"`
	Resources json.RawMessage `json:"resources"` // of the runtime specification
}

// Resize is the body of OpResize.
type Resize struct {
	Proc   Proc   `json:"proc"`
	Height uint16 `json:"height"`
	Width  uint16 `json:"width"`
}

// Attach is the body of OpAttach.
type Attach struct {
	Proc  Proc `json:"proc"`
	Stdin bool `json:"stdin,omitempty"`
	Out   bool `json:"out,omitempty"`
	Err   bool `json:"err,omitempty"`
	Await bool `json:"await,omitempty"` // the process may be yet to come
}

// Exit is how a process ended: a frame of OpExits.
type Exit struct {
	Proc Proc      `json:"proc"`
	Code int       `json:"code"`
	At   time.Time `json:"at"`
	OOM  bool      `json:"oom,omitempty"`
	Pid  int       `json:"pid,omitempty"` // which run it was; 0: a shim of before told it
}

// Status is one element of the answer to OpList.
type Status struct {
	Proc    Proc  `json:"proc"`
	Pid     int   `json:"pid"`
	Started bool  `json:"started"`
	Exit    *Exit `json:"exit,omitempty"`
}

// WriteFrame writes v as JSON behind its length, in one write.
func WriteFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > MaxFrame {
		return Errorf(Invalid, "message of %d bytes is too large", len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// ReadFrame reads what WriteFrame wrote. The memory it takes grows with what
// has come, not with the length that is announced.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return Errorf(Invalid, "message of %d bytes is too large", n)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(body) != int(n) {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(body, v); err != nil {
		return Errorf(Invalid, "message: %v", err)
	}
	return nil
}

// Kind is what a stream frame carries.
type Kind byte

// The kinds of stream frames, and who sends them.
const (
	Stdin      Kind = iota // client
	Stdout                 // shim
	Stderr                 // shim
	CloseStdin             // client: no more Stdin will come from it
	End                    // shim: the process has ended and this was all
	Dropped                // shim: the client was too slow; the payload says so
)

// AppendData appends a stream frame. p has at most MaxData bytes.
func AppendData(b []byte, kind Kind, p []byte) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	return append(b, p...)
}

// ReadData reads a stream frame into buf, which has room for MaxData bytes.
func ReadData(r io.Reader, buf []byte) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxData {
		return 0, nil, Errorf(Invalid, "stream frame of %d bytes is too large", n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, err
	}
	return Kind(head[0]), buf[:n], nil
}
