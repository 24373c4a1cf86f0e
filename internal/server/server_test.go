package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"isle/internal/server"
	"isle/internal/server/servertest"
)

var _ server.Backend = (*servertest.Backend)(nil)

// host is a server on a unix socket.
type host struct {
	t    *testing.T
	sock string
	log  *bytes.Buffer // read it only after stop
	stop func()
}

// live servers, and the goroutines from before the first of them. No test here
// is parallel: they count goroutines.
var live, before int

// serve starts a server and checks at the end of the test that no goroutine of
// it is left.
func serve(t *testing.T, b server.Backend) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "isle-api")
	if err != nil {
		t.Fatal(err)
	}
	if live == 0 {
		before = runtime.NumGoroutine()
	}
	live++
	log := &bytes.Buffer{}
	s := server.New(server.Config{Backend: b, Log: slog.New(slog.NewTextHandler(log, nil)), Version: "0.1"})
	h := &host{t: t, sock: filepath.Join(dir, "isle.sock"), log: log}
	ls, err := s.Listen([]string{"unix://" + h.sock}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ls) }()
	h.stop = func() {
		cancel()
		if done == nil {
			return
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		done = nil
	}
	t.Cleanup(func() {
		h.stop()
		_ = os.RemoveAll(dir)
		if live--; live == 0 {
			noneLeft(t, before)
		}
	})
	return h
}

// noneLeft waits for the goroutines to go back to what they were.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	for range 500 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

func (h *host) dial() *net.UnixConn {
	h.t.Helper()
	c, err := net.Dial("unix", h.sock)
	if err != nil {
		h.t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// do sends one request on a connection of its own.
func (h *host) do(method, path, body string, header ...string) (int, http.Header, string) {
	h.t.Helper()
	resp := h.open(method, path, body, header...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// open is do without reading the answer.
func (h *host) open(method, path, body string, header ...string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequest(method, "http://isle"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", h.sock) },
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	resp.Body = lastBody{resp.Body, tr}
	return resp
}

// lastBody is the body of the only answer of a transport.
type lastBody struct {
	io.ReadCloser
	tr *http.Transport
}

func (b lastBody) Close() error {
	err := b.ReadCloser.Close()
	b.tr.CloseIdleConnections()
	return err
}

// want is do with an expected status; it returns the body.
func (h *host) want(status int, method, path, body string, header ...string) string {
	h.t.Helper()
	got, _, text := h.do(method, path, body, header...)
	if got != status {
		h.t.Fatalf("%s %s: %d %s, want %d", method, path, got, text, status)
	}
	return text
}

// object is want for an answer that is a JSON object.
func (h *host) object(status int, method, path, body string, header ...string) map[string]any {
	h.t.Helper()
	var m map[string]any
	text := h.want(status, method, path, body, header...)
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		h.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return m
}

func (h *host) message(status int, method, path, body string, header ...string) string {
	h.t.Helper()
	return fmt.Sprint(h.object(status, method, path, body, header...)["message"])
}

// create makes a container of a command and returns its id.
func (h *host) create(name, cmd, more string) string {
	h.t.Helper()
	words, _ := json.Marshal(strings.Fields(cmd))
	body := fmt.Sprintf(`{"Image":"toolbox","Cmd":%s%s}`, words, more)
	return h.object(http.StatusCreated, "POST", "/v1.52/containers/create?name="+name, body)["Id"].(string)
}

func (h *host) running(name, cmd, more string) string {
	h.t.Helper()
	id := h.create(name, cmd, more)
	h.want(http.StatusNoContent, "POST", "/containers/"+id+"/start", "")
	return id
}

func (h *host) start(id string) {
	h.t.Helper()
	h.want(http.StatusNoContent, "POST", "/containers/"+id+"/start", "")
}

func (h *host) kill(id string) {
	h.t.Helper()
	h.want(http.StatusNoContent, "POST", "/containers/"+id+"/kill", "")
}

// hijack sends a request as it stands and returns the connection behind the
// answer's header.
func (h *host) hijack(request string) (*net.UnixConn, *bufio.Reader, string) {
	h.t.Helper()
	c := h.dial()
	h.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		h.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	var header strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			h.t.Fatalf("header: %v after %q", err, header.String())
		}
		if l == "\r\n" {
			return c, r, header.String()
		}
		header.WriteString(strings.ReplaceAll(l, "\r\n", "\n"))
	}
}

func fake() *servertest.Backend { return servertest.New() }
