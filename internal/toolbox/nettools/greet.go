package nettools

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"isle/internal/toolbox/applet"
)

// greeter is the server's way to speak.
type greeter struct {
	name  string
	s     applet.IO
	quiet bool
}

func (g greeter) hello(local, peer net.Addr) string {
	return fmt.Sprintf("hello from %s (%s) to %s\n", g.name, plain(local), plain(peer))
}

func (g greeter) log(kind, what string, peer net.Addr) {
	if !g.quiet {
		fmt.Fprintf(g.s.Out, "%s %s %s\n", kind, plain(peer), what)
	}
}

// plain is an address without the form that IPv4 has on a socket for both families.
func plain(a net.Addr) string {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
	}
	return a.String()
}

// mux is what there is over HTTP. Everything else is a hello too.
func (g greeter) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, g.hello(ends(r))) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/headers", headers)
	mux.HandleFunc("/bytes", manyBytes)
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(r.FormValue("code")); err == nil && code >= 200 && code < 600 {
			w.WriteHeader(code)
			return
		}
		http.Error(w, "code must be 200 to 599", http.StatusBadRequest)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, peer := ends(r)
		g.log("http", r.Method+" "+r.URL.RequestURI(), peer)
		mux.ServeHTTP(w, r)
	})
}

type text string

func (text) Network() string  { return "tcp" }
func (t text) String() string { return string(t) }

func ends(r *http.Request) (local, peer net.Addr) {
	local, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr) // always set by the server
	return local, text(r.RemoteAddr)
}

func headers(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s\nHost: %s\n", r.Method, r.URL.RequestURI(), r.Proto, r.Host)
	for _, k := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[k] {
			fmt.Fprintf(w, "%s: %s\n", k, v)
		}
	}
}

// manyBytes sends /bytes?n=64m.
func manyBytes(w http.ResponseWriter, r *http.Request) {
	n, err := applet.Size(r.FormValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyN(w, zeroes{}, n)
}

// zeroes is /dev/zero, which may not be there.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// echo sends back what it gets. Who says nothing is greeted.
func (g greeter) echo(c net.Conn, begin []byte) {
	defer c.Close()
	g.log("tcp", "connected", c.RemoteAddr())
	if len(begin) == 0 {
		if _, err := io.WriteString(c, g.hello(c.LocalAddr(), c.RemoteAddr())); err != nil {
			return
		}
	}
	io.Copy(c, io.MultiReader(bytes.NewReader(begin), c))
}
