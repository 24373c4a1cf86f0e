package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/remote"
)

// site is a machine whose plugins have directories of their own.
type site struct {
	t              *testing.T
	sockets, specs string
	seats          *seats
	cfg            remote.Config
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, sockets: t.TempDir(), specs: t.TempDir(), seats: &seats{in: map[string]string{}}}
	s.cfg = remote.Config{
		Seats: s.seats, Sockets: []string{s.sockets}, Specs: []string{s.specs},
		Answer: 20 * time.Second, Wait: 20 * time.Second, Pause: 5 * time.Millisecond,
	}
	return s
}

func (s *site) registry() *remote.Registry { return remote.New(s.cfg) }

func (s *site) socket(name string) string { return filepath.Join(s.sockets, name+".sock") }

// fake is a plugin that answers what it is told to.
type fake struct {
	mu      sync.Mutex
	answers map[string]any // by method: a string is the whole answer, a handler writes it itself, all else is JSON
	heard   []string
}

// answering is a fake of a kind; methods that are not named are answered {}.
func answering(kind string, answers map[string]any) *fake {
	f := &fake{answers: map[string]any{
		"Plugin.Activate": map[string]any{"Implements": []string{kind}}, "NetworkDriver.GetCapabilities": `{"Scope":"local"}`,
	}}
	for m, a := range answers {
		f.answers[m] = a
	}
	return f
}

type failure struct {
	status int
	text   string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	method := strings.TrimPrefix(r.URL.Path, "/")
	f.mu.Lock()
	f.heard = append(f.heard, strings.TrimSpace(method+" "+string(body)))
	a, ok := f.answers[method]
	f.mu.Unlock()
	switch a := a.(type) {
	case http.HandlerFunc:
		a(w, r)
	case string:
		_, _ = io.WriteString(w, a)
	case failure:
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.text)
	default:
		if !ok {
			a = struct{}{}
		}
		_ = json.NewEncoder(w).Encode(a)
	}
}

// calls are the methods that were called, without the handshake.
func (f *fake) calls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, h := range f.heard {
		method, _, _ := strings.Cut(h, " ")
		if method != "Plugin.Activate" && !strings.HasSuffix(method, ".GetCapabilities") {
			out = append(out, method[strings.IndexByte(method, '.')+1:])
		}
	}
	return strings.Join(out, " ")
}

func (f *fake) set(method string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[method] = answer
}

func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = nil
}

// run answers on a socket until the test ends, or stop is called.
func (s *site) run(name string, h http.Handler) (stop func()) {
	s.t.Helper()
	l, err := net.Listen("unix", s.socket(name))
	if err != nil {
		s.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	stop = func() { _ = srv.Close() }
	s.t.Cleanup(stop)
	return stop
}

// lookUp is the driver of a plugin that is there.
func (s *site) lookUp(r *remote.Registry, name string) network.External {
	s.t.Helper()
	if err := r.LookUp(s.t.Context(), name); err != nil {
		s.t.Fatal(err)
	}
	return r.Driver(name)
}

// seats is a kernel in which each link that is asked for is there.
type seats struct {
	mu    sync.Mutex
	in    map[string]string // source by owner
	took  []netspec.Seat
	error error // of Take
	stuck error // of Return
}

var _ remote.Seats = &seats{}

func (s *seats) Take(_ context.Context, w netspec.Seat) (netspec.Seated, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.error != nil {
		return netspec.Seated{}, s.error
	}
	s.in[w.Owner] = w.Source
	s.took = append(s.took, w)
	mac := w.MAC
	if mac == (netspec.MAC{}) {
		mac = netspec.MAC{6, 6, 6, 6, 6, 6}
	}
	return netspec.Seated{Index: 5, Peer: 7, Kind: "veth", MAC: mac, MTU: 1450, Host: "host0"}, nil
}

func (s *seats) Check(_ context.Context, w netspec.Seat, have netspec.Seated) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[w.Owner] != w.Source || have.Index != 5 {
		return errors.New("it is not there")
	}
	return nil
}

func (s *seats) Return(_ context.Context, w netspec.Seat, have netspec.Seated) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck != nil {
		return s.stuck
	}
	if w.Source != "" && have.Index != 5 {
		return fmt.Errorf("another link than that of %s", w.Source)
	}
	delete(s.in, w.Owner)
	return nil
}

func (s *seats) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.in) == 0
}

// app is a network that this isled makes.
func app() network.Network {
	return network.Network{
		ID: strings.Repeat("ab12", 16), Name: "app", Driver: "x", IPv4: true, IPv6: true, Created: time.Now().Add(time.Hour),
		Options: map[string]string{"color": "blue"},
		Pools: []network.Pool{
			{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1"), Aux: map[string]netip.Addr{"printer": netip.MustParseAddr("10.9.0.7")}},
			{Subnet: netip.MustParsePrefix("fd00:9::/64"), Gateway: netip.MustParseAddr("fd00:9::1")},
		},
	}
}

// web is an endpoint on n.
func web(n network.Network) network.Attachment {
	return network.Attachment{
		Network: n, NSPath: "/run/isle/ns/web", NS: "web", Hostname: "web",
		Endpoint: network.Endpoint{
			ID: strings.Repeat("ed34", 16), Network: n.ID, Sandbox: "web", Interface: "eth0",
			Addrs:   []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd00:9::2/64")},
			Options: map[string]string{"weight": "3"},
		},
		Publish: []network.Publish{{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8080, Count: 2, ContainerPort: 80}},
	}
}

const goodJoin = `{"InterfaceName":{"SrcName":"p0","DstPrefix":"eth"},"Gateway":"10.9.0.1","GatewayIPv6":"fe80::1"}`

// nodes are what it was told of hosts, sorted.
func (f *fake) nodes() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.heard {
		what, data, ok := strings.Cut(strings.TrimPrefix(h, "NetworkDriver.Discover"), ` {"DiscoveryType":1,"DiscoveryData":`)
		if ok {
			out = append(out, what+" "+strings.TrimSuffix(data, "}"))
		}
	}
	slices.Sort(out)
	return out
}
