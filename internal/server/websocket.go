package server

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it; nothing is kept secret by it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// A WebSocket (RFC 6455) for attach/ws: just what a conversation needs. Input
// is the payload of text and binary frames, output is sent in such frames.

const (
	wsText   = 0x1
	wsBinary = 0x2
	wsClose  = 0x8
	wsPing   = 0x9
	wsPong   = 0xA

	wsFinal      = 0x80
	wsMasked     = 0x80
	wsMaxControl = 125
	wsKey        = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // of the RFC
)

// upgradable checks that the request opens a WebSocket.
func upgradable(r *http.Request) error {
	h := r.Header
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") || !hasToken(h.Get("Connection"), "upgrade") ||
		h.Get("Sec-WebSocket-Version") != "13" || h.Get("Sec-WebSocket-Key") == "" {
		return invalid("not a WebSocket handshake of version 13")
	}
	return sameOrigin(r)
}

// sameOrigin keeps pages of other sites away: a browser lets any page open a
// WebSocket to any address. It does not concern unix sockets.
func sameOrigin(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	origin := r.Header.Get("Origin")
	if origin == "" || local == nil || local.Network() == "unix" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
		return invalid("origin %q is not this host", origin)
	}
	return nil
}

func hasToken(list, token string) bool {
	for t := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(t), token) {
			return true
		}
	}
	return false
}

func wsHandshake(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + wsKey)) //nolint:gosec // see above
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
}

// webSocket is both ends of the payload.
type webSocket struct {
	kind byte // of the frames that are sent
	r    *bufio.Reader

	left int64 // of the frame that is being read
	mask [4]byte
	pos  int

	mu sync.Mutex // guards w
	w  io.Writer
}

func (ws *webSocket) Write(p []byte) (int, error) {
	if err := ws.frame(ws.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (ws *webSocket) frame(kind byte, p []byte) error {
	b := append(make([]byte, 0, len(p)+10), wsFinal|kind)
	switch n := len(p); {
	case n <= wsMaxControl:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	_, err := ws.w.Write(append(b, p...))
	return gone(err)
}

// Read gives payload; a close frame is the end.
func (ws *webSocket) Read(p []byte) (int, error) {
	for ws.left == 0 {
		if err := ws.next(); err != nil {
			return 0, err
		}
	}
	n, err := ws.r.Read(p[:min(int64(len(p)), ws.left)])
	for i := range p[:n] {
		p[i] ^= ws.mask[ws.pos&3]
		ws.pos++
	}
	ws.left -= int64(n)
	if err != nil {
		return n, fmt.Errorf("websocket: %w", err)
	}
	return n, nil
}

// next reads the header of a frame, and all of a control frame.
func (ws *webSocket) next() error {
	var h [2]byte
	if _, err := io.ReadFull(ws.r, h[:]); err != nil {
		return err
	}
	if h[1]&wsMasked == 0 {
		return errors.New("websocket: a client's frame is not masked")
	}
	n, err := ws.length(h[1] &^ wsMasked)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(ws.r, ws.mask[:]); err != nil {
		return err
	}
	ws.pos = 0
	kind := h[0] & 0xF
	if kind&0x8 == 0 {
		ws.left = n
		return nil
	}
	return ws.control(kind, n)
}

func (ws *webSocket) length(short byte) (int64, error) {
	var b [8]byte
	switch short {
	case 126:
		_, err := io.ReadFull(ws.r, b[6:])
		return int64(binary.BigEndian.Uint64(b[:])), err
	case 127:
		_, err := io.ReadFull(ws.r, b[:])
		if n := binary.BigEndian.Uint64(b[:]); err != nil || n < 1<<62 {
			return int64(n), err
		}
		return 0, errors.New("websocket: frame too long")
	}
	return int64(short), nil
}

func (ws *webSocket) control(kind byte, n int64) error {
	if n > wsMaxControl {
		return errors.New("websocket: control frame too long")
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(ws.r, p); err != nil {
		return err
	}
	for i := range p {
		p[i] ^= ws.mask[i&3]
	}
	switch kind {
	case wsPing:
		return ws.frame(wsPong, p)
	case wsClose:
		_ = ws.frame(wsClose, p[:min(len(p), 2)])
		return io.EOF
	}
	return nil
}
