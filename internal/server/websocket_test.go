package server_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"isle/internal/server"
)

const wsRequest = "GET /v1.52/containers/x/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"

// frame is a masked frame, as a client sends it.
func frame(head byte, payload string) []byte {
	b := []byte{head}
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(payload)))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i&3])
	}
	return b
}

func readFrame(t *testing.T, r io.Reader) (byte, string) {
	t.Helper()
	var h [2]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		t.Fatal(err)
	}
	n := int(h[1])
	if n == 126 {
		var l [2]byte
		if _, err := io.ReadFull(r, l[:]); err != nil {
			t.Fatal(err)
		}
		n = int(binary.BigEndian.Uint16(l[:]))
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	return h[0], string(p)
}

func TestWebSocket(t *testing.T) {
	h := serve(t, fake())
	id := h.create("x", "cat", `,"OpenStdin":true`)
	c, r, header := h.hijack(wsRequest)
	if !strings.Contains(header, "101 Switching Protocols") || !strings.Contains(header, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n") {
		t.Fatal(header) // the accept value is the example of RFC 6455
	}
	h.start(id)
	long := strings.Repeat("long ", 100)
	for _, send := range [][]byte{frame(0x81, "text"), frame(0x82, long)} {
		_, _ = c.Write(send)
	}
	for got := ""; got != "text"+long; {
		head, p := readFrame(t, r)
		got += p
		if head != 0x82 || !strings.HasPrefix("text"+long, got) {
			t.Fatalf("%x %q", head, got)
		}
	}
	_, _ = c.Write(frame(0x89, "are you there"))
	if head, p := readFrame(t, r); head != 0x8A || p != "are you there" {
		t.Errorf("%x %q", head, p)
	}
	_, _ = c.Write(frame(0x01, "in two "))
	_, _ = c.Write(frame(0x80, "pieces"))
	for got := ""; got != "in two pieces"; {
		_, p := readFrame(t, r)
		got += p
	}
	_, _ = c.Write(frame(0x88, "\x03\xe8"))
	if head, p := readFrame(t, r); head != 0x88 || p != "\x03\xe8" {
		t.Errorf("%x %q", head, p)
	}
	if rest, err := io.ReadAll(r); err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

func TestWebSocketOld(t *testing.T) {
	h := serve(t, fake())
	id := h.create("x", "echo hello", "")
	_, r, _ := h.hijack(strings.Replace(wsRequest, "/v1.52/", "/v1.27/", 1))
	h.start(id)
	if head, p := readFrame(t, r); head != 0x81 || p != "hello\n" { // text before 1.28
		t.Errorf("%x %q", head, p)
	}
}

func TestWebSocketRefuses(t *testing.T) {
	h := serve(t, fake())
	h.create("x", "cat", "")
	h.want(400, "GET", "/containers/x/attach/ws", "")
	h.want(404, "GET", "/containers/none/attach/ws", "", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "a")
	// A frame that is not masked ends the conversation.
	c, r, _ := h.hijack(wsRequest)
	h.start("x")
	_, _ = c.Write([]byte{0x82, 1, 'a'})
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
}

// Pages of other sites must not reach a TCP listener through the browser.
func TestWebSocketOrigin(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.create("x", "sleep", "")
	s := server.New(server.Config{Backend: b})
	ls, err := s.Listen([]string{"tcp://127.0.0.1:0"}, "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), ls) }()
	for origin, want := range map[string]string{"http://evil.test": "HTTP/1.1 400", "http://x": "HTTP/1.1 101"} {
		c, err := net.Dial("tcp", ls[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		request := strings.Replace(wsRequest, "\n\n", "\nOrigin: "+origin+"\n\n", 1)
		_, _ = io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n"))
		if l, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(l, want) {
			t.Errorf("%s: %q %v", origin, l, err)
		}
		c.Close()
	}
	t.Cleanup(func() { <-done })
}
