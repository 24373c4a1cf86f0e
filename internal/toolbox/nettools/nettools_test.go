package nettools

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

// in makes a private network namespace with loopback up for the rest of the test.
func in(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace to be had: %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func do(t *testing.T, f applet.Func, stdin string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := f(context.Background(), applet.IO{In: strings.NewReader(stdin), Out: &out, Err: &errs}, args)
	t.Logf("%q: %v %s", args, err, errs.String())
	return out.String(), err
}

// server starts serve on a free port and returns the port.
func server(t *testing.T, scheme string) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	g := greeter{name: "here", s: applet.IO{Out: io.Discard, Err: io.Discard}}
	if err := g.listen(t.Context(), new(errgroup.Group), scheme+":"+port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestServe(t *testing.T) {
	t.Parallel()
	port := server(t, "")
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"http", []string{"http://127.0.0.1:" + port}, "hello from here (127.0.0.1:" + port + ") to 127.0.0.1:"},
		{"http over IPv6", []string{"http://[::1]:" + port}, "hello from here ([::1]:" + port + ") to [::1]:"},
		{"headers", []string{"-H", "X-A: b", "http://127.0.0.1:" + port + "/headers"}, "X-A: b"},
		{"tcp echo", []string{"-d", "some text", "tcp://127.0.0.1:" + port}, "some text"},
		{"tcp that looks like HTTP at first", []string{"-d", "GETTING", "tcp://127.0.0.1:" + port}, "GETTING"},
		{"tcp hello", []string{"tcp://127.0.0.1:" + port}, "hello from here"},
		{"udp", []string{"-d", "packet", "udp://127.0.0.1:" + port}, "\npacket"},
		{"udp from the address that was asked", []string{"-d", "p", "udp://127.0.0.9:" + port}, "hello from here (127.0.0.9:" + port + ")"},
		{"udp over IPv6", []string{"udp://[::1]:" + port}, "hello from here ([::1]:" + port + ")"},
	} {
		got, err := do(t, Get, "", append([]string{"-T", "5s"}, c.args...)...)
		if err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	if got, err := do(t, Get, "", "http://127.0.0.1:"+port+"/bytes?n=70k"); err != nil || len(got) != 70<<10 {
		t.Errorf("/bytes: %d bytes, %v", len(got), err)
	}
	if _, err := do(t, Get, "", "http://127.0.0.1:"+port+"/status?code=503"); applet.Status(err) != int(notOK) {
		t.Errorf("status 503: %v", err)
	}
}

func TestParseSpec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ spec, kind, addr string }{
		{"80", "", ":80"}, {":80", "", ":80"}, {"tcp://:1", "tcp", ":1"}, {"udp://1.2.3.4:5", "udp", "1.2.3.4:5"}, {"http://[::1]:8", "http", "[::1]:8"},
	} {
		if kind, addr, err := parseSpec(c.spec); kind != c.kind || addr != c.addr || err != nil {
			t.Errorf("%s: %q %q %v", c.spec, kind, addr, err)
		}
	}
	for _, spec := range []string{"quic://:1", "tcp://host:", "1:2:3"} {
		if _, _, err := parseSpec(spec); err == nil {
			t.Errorf("%s is accepted", spec)
		}
	}
}

func TestNetcat(t *testing.T) {
	t.Parallel()
	port := server(t, "tcp://")
	if got, err := do(t, Netcat, "line\n", "-w", "1", "127.0.0.1", port); err != nil || !strings.Contains(got, "line\n") {
		t.Errorf("echo: %q, %v", got, err)
	}
	if _, err := do(t, Netcat, "", "-z", "-w", "1", "127.0.0.1", port); err != nil {
		t.Errorf("an open port: %v", err)
	}
	if _, err := do(t, Netcat, "", "-z", "-w", "1", "127.0.0.1", "1"); applet.Status(err) != 1 {
		t.Errorf("a closed port: %v", err)
	}
}

func TestPerf(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go servePerf(l)
	t.Cleanup(func() { l.Close() })
	for _, c := range []struct {
		flag, mode string
		moved      func(result) bool
	}{
		{"-P2", "upload", func(r result) bool { return r.Bytes > 0 && r.BitsPerSecond > 0 && r.Streams == 2 }},
		{"-R", "download", func(r result) bool { return r.Bytes > 0 }},
		{"-L", "latency", func(r result) bool { return r.RoundTrips > 0 && r.MinUs <= r.MedianUs && r.MedianUs <= r.MaxUs }},
	} {
		out, err := do(t, Perf, "", "-j", "-t", "200ms", c.flag, l.Addr().String())
		var r result
		if err == nil {
			err = json.Unmarshal([]byte(out), &r)
		}
		if err != nil || r.Mode != c.mode || !c.moved(r) {
			t.Errorf("%s: %s, %v", c.mode, out, err)
		}
	}
}

func TestDig(t *testing.T) {
	t.Parallel()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(answer)}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	port := netip.MustParseAddrPort(p.LocalAddr().String()).Port()
	at := []string{"@127.0.0.1", "-p", itoa(port)}
	for _, c := range []struct {
		args string
		want string
	}{
		{"web +short", "10.0.0.2\n"},
		{"web AAAA +short", "fd00::2\n"},
		{"-x 10.0.0.2 +short", "web.\n"},
		{"web", "status: NOERROR"},
		{"none", "status: NXDOMAIN"},
	} {
		if got, err := do(t, Dig, "", append(at, strings.Fields(c.args)...)...); err != nil || !strings.Contains(got, c.want) {
			t.Errorf("dig %s: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
	if _, err := do(t, Dig, "", "@127.0.0.1", "-p", "1", "+time=1", "+tries=1", "x"); applet.Status(err) != int(noAnswer) {
		t.Errorf("no server: %v", err)
	}
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	records := map[string]string{
		"web. A": "web. 60 IN A 10.0.0.2", "web. AAAA": "web. 60 IN AAAA fd00::2", "2.0.0.10.in-addr.arpa. PTR": "2.0.0.10.in-addr.arpa. 60 IN PTR web.",
	}
	text, ok := records[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]]
	if !ok {
		m.Rcode = dns.RcodeNameError
	} else if rr, err := dns.NewRR(text); err == nil {
		m.Answer = append(m.Answer, rr)
	}
	w.WriteMsg(m)
}

// The system's ip is the witness for ours.
func TestIPAgreesWithIproute2(t *testing.T) {
	in(t)
	for _, line := range []string{
		"link add v0 type veth peer name v1", "addr add 10.9.8.7/24 dev v0", "addr add fd00:9::7/64 dev v0 nodad", "link set v0 up", "link set v1 up",
		"route add 10.1.0.0/16 via 10.9.8.1", "neigh add 10.9.8.1 lladdr 02:00:00:00:00:01 dev v0 nud permanent", "route add default via 10.9.8.1 metric 7",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	for _, c := range []struct {
		args string
		keys []string
	}{
		{"-j addr show v0", []string{"ifname", "ifindex", "mtu", "address"}},
		{"-j link show v1", []string{"ifname", "ifindex", "operstate"}},
		{"-j -4 route", []string{"dst", "gateway", "dev", "metric", "protocol", "scope", "prefsrc"}},
		{"-j -6 route", []string{"dst", "dev"}},
		{"-j -4 neigh", []string{"dst", "dev", "lladdr"}},
		{"-j rule", []string{"priority", "src", "table"}},
		{"-j route get 10.1.2.3", []string{"dst", "gateway", "dev", "prefsrc"}},
	} {
		theirs, err := exec.Command("ip", strings.Fields(c.args)...).Output()
		if err != nil {
			t.Fatalf("ip %s: %v", c.args, err)
		}
		ours, err := do(t, IP, "", strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if a, b := project(t, string(theirs), c.keys), project(t, ours, c.keys); a != b {
			t.Errorf("%s:\ntheirs %s\nours   %s", c.args, a, b)
		}
	}
	if out, err := do(t, IP, "", "addr", "show", "v0"); err != nil || !strings.Contains(out, "inet 10.9.8.7/24 scope global v0") {
		t.Errorf("addr: %q, %v", out, err)
	}
	if out, err := do(t, Ping, "", "-c", "1", "10.9.8.7"); err != nil || !strings.Contains(out, "1 packets received") {
		t.Errorf("ping: %q, %v", out, err)
	}
	if _, err := do(t, Ping, "", "-c", "1", "-W", "0.2", "10.9.8.99"); applet.Status(err) != 1 {
		t.Errorf("ping of nobody: %v", err)
	}
}

// project keeps keys of each element of a JSON list, sorted by the elements' text.
func project(t *testing.T, text string, keys []string) string {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	var rows []string
	for _, m := range list {
		row := map[string]any{}
		for _, k := range keys {
			if v, ok := m[k]; ok {
				row[k] = v
			}
		}
		rows = append(rows, string(must(json.Marshal(row))))
	}
	return strings.Join(rows, "\n")
}

func TestSniff(t *testing.T) {
	t.Parallel()
	for begin, want := range map[string]bool{"": true, "G": true, "GE": true, "GET": true, "GET ": false, "GEX": false, "hello": false, "P": true} {
		if got := undecided([]byte(begin)); got != want {
			t.Errorf("undecided(%q) = %v", begin, got)
		}
	}
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		for _, c := range "GET / HTTP" {
			b.Write([]byte{byte(c)})
			time.Sleep(time.Millisecond)
		}
	}()
	if begin, quiet := sniff(a); quiet || !looksLikeHTTP(begin) {
		t.Errorf("a request in single bytes: %q, %v", begin, quiet)
	}
}
