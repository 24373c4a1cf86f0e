package network_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	miekg "github.com/miekg/dns"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dns"
)

// resolvers is a machine whose namespaces are ports of this one.
type resolvers struct {
	at    map[netspec.NS]string
	ports map[netspec.NS][]uint16 // asked for, in order
	taken map[uint16]bool
}

func withNames(t *testing.T, w *world) (*network.Manager, *resolvers) {
	t.Helper()
	r := &resolvers{map[netspec.NS]string{}, map[netspec.NS][]uint16{}, map[uint16]bool{}}
	w.machine.listen = r.listen
	m := w.manager()
	m.DNS = &dns.Server{Log: m.Log}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.DNS.Close)
	return m, r
}

func (r *resolvers) listen(ns netspec.NS, port uint16) (net.PacketConn, net.Listener, error) {
	r.ports[ns] = append(r.ports[ns], port)
	if r.taken[port] {
		return nil, nil, syscall.EADDRINUSE
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	r.at[ns] = u.LocalAddr().String()
	return u, l, err
}

func (r *resolvers) ask(t *testing.T, ns netspec.NS, name string) string {
	t.Helper()
	q := new(miekg.Msg).SetQuestion(miekg.Fqdn(name), miekg.TypeA)
	if strings.HasSuffix(name, ".arpa") {
		q.Question[0].Qtype = miekg.TypePTR
	}
	m, _, err := (&miekg.Client{Timeout: 10 * time.Second}).Exchange(q, r.at[ns])
	if err != nil {
		return "unreachable"
	}
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return strings.Join(append([]string{miekg.RcodeToString[m.Rcode]}, out...), " ")
}

// TestNamesFollowTheRecords goes through the life of a name.
func TestNamesFollowTheRecords(t *testing.T) {
	w := newWorld()
	m, r := withNames(t, w)
	create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	create(t, m, api.CreateRequest{Name: "back", IPAM: config("10.2.0.0/24")})
	req := request("web", nil, "app")
	req.Networks[0].Settings.Aliases = []string{"www"}
	if _, err := m.Open(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	open(t, m, "db", "back")
	expect := func(ns netspec.NS, name, want string) {
		t.Helper()
		if got := r.ask(t, ns, name); got != want {
			t.Errorf("%s asks for %s: %s, want %s", ns, name, got, want)
		}
	}
	expect("web", "web", "NOERROR 10.1.0.2")
	expect("web", "www.app", "NOERROR 10.1.0.2")
	expect("web", "db", "NXDOMAIN")
	expect("db", "web", "NXDOMAIN")
	if _, err := m.Connect(t.Context(), "web", network.ConnectRequest{Network: "back", ContainerName: "web", ContainerID: "web"}); err != nil {
		t.Fatal(err)
	}
	expect("web", "db", "NOERROR 10.2.0.2")
	expect("db", "web", "NOERROR 10.2.0.3")
	expect("db", "www", "NXDOMAIN")
	expect("db", "3.0.2.10.in-addr.arpa", "NOERROR web.back.")
	if err := m.Rename(t.Context(), "web", "web", "shop"); err != nil {
		t.Fatal(err)
	}
	expect("db", "shop", "NOERROR 10.2.0.3")
	expect("web", "www", "NOERROR 10.1.0.2")
	expect("db", "3.0.2.10.in-addr.arpa", "NOERROR shop.back.")
	back, _ := m.Find(t.Context(), "back")
	if err := m.Disconnect(t.Context(), "web", back.ID); err != nil {
		t.Fatal(err)
	}
	expect("db", "shop", "NXDOMAIN")
	expect("web", "db", "NXDOMAIN")
	m.DNS.Close()
	m, r = withNames(t, w) // another process, from the records
	expect("web", "shop", "NOERROR 10.1.0.2")
	if err := m.Close(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	expect("db", "db", "unreachable")
}

// TestNamesOfANetwork: what "network dns" lists.
func TestNamesOfANetwork(t *testing.T) {
	w := newWorld()
	m, _ := withNames(t, w)
	create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	for _, c := range []string{"web1", "web2"} {
		req := request(c, nil, "app")
		req.Networks[0].Settings.Aliases = []string{"www"}
		if _, err := m.Open(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	list, err := m.Names(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		got = append(got, fmt.Sprint(r.Name, " ", r.Type, " ", r.Addr, " ", r.Container))
	}
	want := []string{"web1 A 10.1.0.2 web1", "web2 A 10.1.0.3 web2", "www A 10.1.0.2 web1", "www A 10.1.0.3 web2"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := m.Names(t.Context(), "none-such"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestResolverMoves: while isled was away the container took the port.
func TestResolverMoves(t *testing.T) {
	w := newWorld()
	m, r := withNames(t, w)
	open(t, m, "c1", "bridge")
	port := r.ports["c1"][0]
	m.DNS.Close()
	m = w.manager()
	m.DNS = &dns.Server{Log: m.Log}
	defer m.DNS.Close()
	r.taken[port], r.taken[port+1] = true, true
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "c1", "c1"); !strings.HasPrefix(got, "NOERROR") {
		t.Error(got)
	}
	if d := w.kernel.State[netspec.DNSRedirect{NS: "c1"}.Key()].(netspec.DNSRedirect); d.Port != port+2 {
		t.Errorf("redirected to %d, want %d", d.Port, port+2)
	}
	if !w.kernel.State.Equal(w.want(t)) {
		t.Error("the records do not say where the resolver is")
	}
}

// TestResolverFails: all or nothing.
func TestResolverFails(t *testing.T) {
	w := newWorld()
	m, _ := withNames(t, w)
	before := len(w.kernel.State)
	w.machine.listen = func(netspec.NS, uint16) (net.PacketConn, net.Listener, error) { return nil, nil, syscall.EMFILE }
	_, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8080"), "bridge"))
	if err == nil || len(w.kernel.State) != before || len(w.keys("sandbox/"))+len(w.keys("endpoint/"))+len(w.keys("publish/")) != 0 {
		t.Errorf("err %v; something is left", err)
	}
	open(t, m, "n", "none")
	if _, err := m.Connect(t.Context(), "n", network.ConnectRequest{Network: "bridge", ContainerName: "n"}); err == nil || len(w.keys("endpoint/")) != 1 {
		t.Errorf("connect: %v; %v", err, w.keys("endpoint/"))
	}
	if _, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8080"), "none")); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestUpstreams(t *testing.T) {
	m := newWorld().start(t)
	for s, good := range map[string]bool{"192.0.2.1": true, "192.0.2.1:5353": true, "fd00::1": true, "[fd00::1]:53": true, "dns.example": false, "": false} {
		req := request("c1", nil, "bridge")
		req.DNS.Upstreams = []string{s}
		_, err := m.Open(t.Context(), req)
		if good != (err == nil) || (!good && !errdefs.IsInvalidArgument(err)) {
			t.Errorf("name server %q: %v", s, err)
		}
		if err := m.Close(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}
}
