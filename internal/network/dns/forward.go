package dns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	headStart = 150 * time.Millisecond // of a name server before the next one is asked too
	patience  = 4 * time.Second        // for all of them
)

// ask puts q to the name servers outside. The first one gets a small head
// start, so that the order means something; then they race. An answer, also
// "no such name", ends the race; a failure lets the next one start.
func (s *Server) ask(ctx context.Context, c Client, q *dns.Msg, tcp bool) *dns.Msg {
	servers := c.Upstreams
	if len(servers) == 0 && s.Host != nil {
		servers = s.Host.Servers()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp := s.race(ctx, servers, q, tcp)
	if resp == nil {
		return failed(q)
	}
	resp.Id, resp.Compress = q.Id, true
	if q.IsEdns0() == nil { // the client would not understand it
		resp.Extra = withoutOPT(resp.Extra)
	}
	return resp
}

func (s *Server) race(ctx context.Context, servers []netip.AddrPort, q *dns.Msg, tcp bool) *dns.Msg {
	answers := make(chan *dns.Msg, len(servers))
	var worst *dns.Msg // an answer that helps nobody, if there is no better
	running := 0
	for i := 0; i < len(servers) || running > 0; {
		var start <-chan time.Time
		if i < len(servers) {
			if running == 0 {
				running += s.launch(ctx, servers[i], q, tcp, answers)
				i++
				continue
			}
			start = time.After(headStart)
		}
		select {
		case <-ctx.Done():
			return worst
		case <-start:
			running += s.launch(ctx, servers[i], q, tcp, answers)
			i++
		case resp := <-answers:
			running--
			if resp != nil && (resp.Rcode == dns.RcodeSuccess || resp.Rcode == dns.RcodeNameError) {
				return resp
			}
			if resp != nil {
				worst = resp
			}
		}
	}
	return worst
}

// launch asks one server; answers gets exactly one message, nil for none. The
// channel has room for all, so the goroutine ends when its exchange does, which
// ctx bounds.
func (s *Server) launch(ctx context.Context, server netip.AddrPort, q *dns.Msg, tcp bool, answers chan<- *dns.Msg) int {
	s.wg.Go(func() {
		resp, err := exchange(ctx, server, q, tcp)
		if err != nil {
			resp = nil
		}
		answers <- resp
	})
	return 1
}

// exchange asks over UDP from a socket of its own, so that its port is hard to
// guess, and over TCP when the answer did not fit and the client can take more.
func exchange(ctx context.Context, server netip.AddrPort, q *dns.Msg, tcp bool) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	resp, err := once(ctx, "udp", server, q)
	if err == nil && resp.Truncated && tcp {
		return once(ctx, "tcp", server, q)
	}
	return resp, err
}

func once(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	conn := &dns.Conn{Conn: c, UDPSize: 4096}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		resp, err := conn.ReadMsg()
		var netErr net.Error
		if errors.As(err, &netErr) || errors.Is(err, net.ErrClosed) || (err != nil && network == "tcp") {
			return nil, err
		}
		if err == nil && answers(resp, q) {
			return resp, nil
		}
		if ctx.Err() != nil { // what is not our answer is passed over, but not for ever
			return nil, ctx.Err()
		}
	}
}

// answers reports whether resp is an answer to q and not a forged or late one.
func answers(resp, q *dns.Msg) bool {
	return resp.Response && resp.Id == q.Id && len(resp.Question) == 1 && len(q.Question) == 1 &&
		strings.EqualFold(resp.Question[0].Name, q.Question[0].Name) &&
		resp.Question[0].Qtype == q.Question[0].Qtype && resp.Question[0].Qclass == q.Question[0].Qclass
}

func failed(q *dns.Msg) *dns.Msg {
	resp := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	resp.RecursionAvailable = true
	echoEDNS(resp, q)
	return resp
}

func withoutOPT(extra []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}

// HostConfig is the name servers of the host: those given, else those of the
// file, which is read again when it has changed.
type HostConfig struct {
	Given []netip.AddrPort
	Path  string // "": /etc/resolv.conf

	mu      sync.Mutex
	looked  time.Time
	stamp   time.Time
	size    int64
	servers []netip.AddrPort
}

// Servers are the name servers now. It looks at the file at most once a second.
func (h *HostConfig) Servers() []netip.AddrPort {
	if len(h.Given) > 0 {
		return h.Given
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.looked) < time.Second {
		return h.servers
	}
	h.looked = time.Now()
	path := cmp.Or(h.Path, "/etc/resolv.conf")
	st, err := os.Stat(path)
	if err != nil || (st.ModTime().Equal(h.stamp) && st.Size() == h.size) {
		return h.servers
	}
	if b, err := os.ReadFile(path); err == nil {
		h.stamp, h.size, h.servers = st.ModTime(), st.Size(), nameservers(b)
	}
	return h.servers
}

func nameservers(conf []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for line := range bytes.Lines(conf) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// ParseServer reads "address" or "address:port".
func ParseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("invalid name server %q: %w", s, err)
	}
	return ap, nil
}
