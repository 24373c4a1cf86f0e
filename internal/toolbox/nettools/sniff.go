package nettools

import (
	"bytes"
	"net"
	"net/http"
	"time"
)

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace}

// sniff reads until it is clear whether the client speaks HTTP. quiet means that
// it has said nothing.
func sniff(c net.Conn) (begin []byte, quiet bool) {
	_ = c.SetReadDeadline(time.Now().Add(quietTime)) // fails only on a closed connection, as the read will
	defer c.SetReadDeadline(time.Time{})
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		begin = append(begin, buf[:n]...)
		if err != nil || !undecided(begin) {
			return begin, len(begin) == 0
		}
	}
}

// undecided is a beginning that may become a request or not.
func undecided(begin []byte) bool {
	for _, m := range methods {
		if line := m + " "; len(begin) < len(line) && bytes.HasPrefix([]byte(line), begin) {
			return true
		}
	}
	return false
}

func looksLikeHTTP(begin []byte) bool {
	for _, m := range methods {
		if bytes.HasPrefix(begin, []byte(m+" ")) {
			return true
		}
	}
	return false
}

// begun is a connection of which something has been read already.
type begun struct {
	net.Conn
	begin []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.begin) > 0 {
		n := copy(p, b.begin)
		b.begin = b.begin[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// handover is a listener that gets its connections from somebody who has looked at them.
type handover struct {
	conns chan net.Conn
	addr  net.Addr
}

func (h *handover) Accept() (net.Conn, error) { return <-h.conns, nil }
func (h *handover) Close() error              { return nil }
func (h *handover) Addr() net.Addr            { return h.addr }
