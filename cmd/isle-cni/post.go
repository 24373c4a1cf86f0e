package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// patience is how long isled may take, in seconds: a LAN may have to be asked for an
// address. Runtimes have limits of their own.
const patience = 120

// request is what isled is asked for.
type request struct {
	command string
	config  []byte
	env     func(string) string
}

// post sends the request as HTTP/1.0, which is simple enough to do without net/http:
// that alone would double the time that the plugin takes to start.
func (r request) post(socket string) (status int, body []byte, err error) {
	c, err := dial(socket)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	if _, err := c.Write(append(r.head(), r.config...)); err != nil {
		return 0, nil, err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return 0, nil, err
	}
	return parse(answer)
}

func (r request) head() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /isle/v1/cni/%s?", escape(strings.ToLower(r.command)))
	for key, name := range map[string]string{"containerID": "CNI_CONTAINERID", "netns": "CNI_NETNS", "ifname": "CNI_IFNAME", "args": "CNI_ARGS"} {
		fmt.Fprintf(&b, "%s=%s&", key, escape(r.env(name)))
	}
	fmt.Fprintf(&b, " HTTP/1.0\r\nHost: isle\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(r.config))
	return b.Bytes()
}

// escape is the form in which everything can stand in a query.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// dial connects without package net, which would bring a resolver along.
func dial(socket string) (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), socket)
	limit := syscall.Timeval{Sec: patience}
	for _, step := range []func() error{
		func() error { return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit) },
		func() error { return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit) },
		func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// parse takes an answer apart.
func parse(answer []byte) (status int, body []byte, err error) {
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	fields := strings.Fields(string(head))
	if !ok || len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/") {
		return 0, nil, errors.New("the connection ended before the answer")
	}
	if status, err = strconv.Atoi(fields[1]); err != nil {
		return 0, nil, fmt.Errorf("status %q is not a number", fields[1])
	}
	if len(body) > 0 && !json.Valid(body) { // isled died while it answered
		return 0, nil, errors.New("the connection ended in the middle of the answer")
	}
	return status, body, nil
}
