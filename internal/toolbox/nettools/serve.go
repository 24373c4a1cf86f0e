package nettools

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// quietTime is how long a TCP client may say nothing until it is greeted as one
// that does not speak HTTP.
const quietTime = 3 * time.Second

// Serve answers HTTP, plain TCP and UDP on every given port: HTTP says hello,
// TCP and UDP say hello and send back what they get.
func Serve(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "serve [[tcp|udp|http]://][ADDR]:PORT…")
	name := fs.String("name", "", "what to call ourselves; the host's name")
	quiet := fs.BoolP("quiet", "q", false, "do not print requests")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if *name == "" {
		*name, _ = os.Hostname() // an empty name is still an answer
	}
	specs := fs.Args()
	if len(specs) == 0 {
		specs = []string{":80"}
	}
	g := greeter{name: *name, s: s, quiet: *quiet}
	return serve(g, specs)
}

// serve runs until a signal: then it returns at once, whatever clients do.
func serve(g greeter, specs []string) error {
	stopped, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	group, ctx := errgroup.WithContext(stopped)
	for _, spec := range specs {
		if err := g.listen(ctx, group, spec); err != nil {
			return err
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- group.Wait() }()
	select {
	case <-stopped.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// listen binds what spec asks for and starts to answer there.
func (g greeter) listen(ctx context.Context, group *errgroup.Group, spec string) error {
	kind, addr, err := parseSpec(spec)
	if err != nil {
		return err
	}
	if kind != "udp" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		fmt.Fprintf(g.s.Err, "listening on tcp %s\n", l.Addr())
		group.Go(func() error { return g.serveTCP(l, kind) })
	}
	if kind == "" || kind == "udp" {
		conns, err := listenUDP(addr)
		if err != nil {
			return err
		}
		for _, c := range conns {
			fmt.Fprintf(g.s.Err, "listening on udp %s\n", c.local)
			group.Go(func() error { return g.serveUDP(c) })
		}
	}
	return nil
}

// parseSpec reads ":80", "80", "tcp://:80". An empty kind is all of them.
func parseSpec(spec string) (kind, addr string, err error) {
	if strings.Contains(spec, "://") {
		u, err := url.Parse(spec)
		if err != nil {
			return "", "", err
		}
		kind, spec = u.Scheme, u.Host
	}
	if !strings.Contains(spec, ":") {
		spec = ":" + spec
	}
	switch kind {
	case "", "tcp", "udp", "http":
	default:
		return "", "", fmt.Errorf("%q is none of tcp, udp, http", kind)
	}
	_, port, err := net.SplitHostPort(spec)
	if err == nil && port == "" {
		err = fmt.Errorf("%q has no port", spec)
	}
	return kind, spec, err
}

// serveTCP tells HTTP and the rest apart by how the client begins.
func (g greeter) serveTCP(l net.Listener, kind string) error {
	web := &handover{conns: make(chan net.Conn), addr: l.Addr()}
	go func() {
		_ = (&http.Server{Handler: g.mux(), ReadHeaderTimeout: time.Minute}).Serve(web) // ends with the process
	}()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ECONNABORTED) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return err
		}
		go g.connection(c, kind, web)
	}
}

func (g greeter) connection(c net.Conn, kind string, web *handover) {
	switch kind {
	case "http":
		web.conns <- c
	case "tcp":
		g.echo(c, nil)
	default:
		begin, quiet := sniff(c)
		if !quiet && looksLikeHTTP(begin) {
			web.conns <- &begun{Conn: c, begin: begin}
			return
		}
		g.echo(c, begin)
	}
}
