package nettools

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"isle/internal/toolbox/applet"
)

// notOK is get's status for an HTTP answer of 400 and above, as wget's.
const notOK applet.Exit = 8

type fetch struct {
	timeout      time.Duration
	headers      []string
	method, data string
	show         bool
	insecure     bool
	family       string
}

// Get prints what a URL answers: http, https, tcp, udp.
func Get(ctx context.Context, s applet.IO, args []string) error {
	var f fetch
	fs := applet.Flags(s, "get [-i] [-T TIME] [-d DATA] URL")
	fs.DurationVarP(&f.timeout, "timeout", "T", 10*time.Second, "for all of it")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "\"Name: value\"; may be repeated")
	fs.StringVarP(&f.method, "request", "X", "", "HTTP method")
	fs.StringVarP(&f.data, "data", "d", "", "what to send")
	fs.BoolVarP(&f.show, "include", "i", false, "status and headers too")
	fs.BoolVarP(&f.insecure, "insecure", "k", false, "do not check certificates")
	four := fs.BoolP("ipv4", "4", false, "IPv4 only")
	six := fs.BoolP("ipv6", "6", false, "IPv6 only")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	f.family = family(*four, *six)
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	return f.get(ctx, s, fs.Arg(0))
}

func family(four, six bool) string {
	switch {
	case four:
		return "4"
	case six:
		return "6"
	}
	return ""
}

func (f fetch) get(ctx context.Context, s applet.IO, target string) error {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "http", "https":
		return f.http(ctx, s.Out, s.Err, target)
	case "tcp", "udp":
		return f.plain(ctx, s, u)
	}
	return fmt.Errorf("%q is none of http, https, tcp, udp", u.Scheme)
}

func (f fetch) http(ctx context.Context, out, notes io.Writer, target string) error {
	method := f.method
	if method == "" {
		method = http.MethodGet
		if f.data != "" {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(f.data))
	if err != nil {
		return err
	}
	for _, h := range f.headers {
		k, v, _ := strings.Cut(h, ":")
		if strings.EqualFold(k, "host") {
			req.Host = strings.TrimSpace(v)
		}
		req.Header.Add(k, strings.TrimSpace(v))
	}
	res, err := f.client().Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if f.show {
		fmt.Fprintf(out, "%s %s\n", res.Proto, res.Status)
		_ = res.Header.Write(out) // the body below will fail in the same way
		fmt.Fprintln(out)
	}
	if _, err := io.Copy(out, res.Body); err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		fmt.Fprintln(notes, "get:", res.Status)
		return notOK
	}
	return nil
}

func (f fetch) client() *http.Client {
	t := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: f.insecure}}
	t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp"+f.family, addr)
	}
	return &http.Client{Transport: t}
}

// plain sends the data and prints the answer: over TCP all there is, over UDP one packet.
func (f fetch) plain(ctx context.Context, s applet.IO, u *url.URL) error {
	c, err := (&net.Dialer{}).DialContext(ctx, u.Scheme+f.family, u.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c, f.data); err != nil || u.Scheme == "udp" {
		return errors.Join(err, onePacket(s.Out, c, f.data))
	}
	if t, ok := c.(*net.TCPConn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	_, err = io.Copy(s.Out, c)
	return err
}

func onePacket(out io.Writer, c net.Conn, sent string) error {
	if sent == "" { // writing no bytes sends no packet through io.WriteString
		if _, err := c.Write(nil); err != nil {
			return err
		}
	}
	buf := make([]byte, 65535)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	_, err = out.Write(buf[:n])
	return err
}

// Wget saves what a URL answers: wget [-q] [-O FILE|-] [-T SECONDS] [--spider] URL.
func Wget(ctx context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "wget [-q] [-O FILE] [-T SECONDS] [--spider] URL")
	quiet := fs.BoolP("quiet", "q", false, "say nothing")
	name := fs.StringP("output-document", "O", "", "where to; - is standard output")
	seconds := fs.IntP("timeout", "T", 60, "seconds")
	spider := fs.Bool("spider", false, "only whether it is there")
	headers := fs.StringArray("header", nil, "\"Name: value\"; may be repeated")
	data := fs.String("post-data", "", "what to send")
	insecure := fs.Bool("no-check-certificate", false, "do not check certificates")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
	defer cancel()
	f := fetch{headers: *headers, data: *data, insecure: *insecure}
	notes := s.Err
	if *quiet {
		notes = io.Discard
	}
	out, done, err := destination(s, fs.Arg(0), *name, *spider)
	if err != nil {
		return err
	}
	target := fs.Arg(0)
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	return errors.Join(f.http(ctx, out, notes, target), done())
}

func destination(s applet.IO, target, name string, spider bool) (io.Writer, func() error, error) {
	none := func() error { return nil }
	switch {
	case spider:
		return io.Discard, none, nil
	case name == "-":
		return s.Out, none, nil
	case name == "":
		u, err := url.Parse(target)
		if err != nil {
			return nil, nil, err
		}
		if name = path.Base(u.Path); name == "." || name == "/" {
			name = "index.html"
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}
