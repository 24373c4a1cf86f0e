package nettools

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"isle/internal/toolbox/applet"
)

// noAnswer is dig's status when no server answers.
const noAnswer applet.Exit = 9

type question struct {
	name    string
	kind    uint16
	server  string
	port    string
	short   bool
	tcp     bool
	search  bool
	timeout time.Duration
	tries   int
}

// Dig asks a name server: dig [@SERVER] [-x ADDR] [-p PORT] [NAME] [TYPE] [+short] [+tcp] [+search] [+time=N] [+tries=N].
func Dig(_ context.Context, s applet.IO, args []string) error {
	q, err := parseDig(args)
	if err != nil {
		return err
	}
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil && q.server == "" {
		return fmt.Errorf("no server given and %w", err)
	}
	if q.server == "" {
		if len(conf.Servers) == 0 {
			return fmt.Errorf("/etc/resolv.conf names no server")
		}
		q.server = conf.Servers[0]
	}
	names := []string{dns.Fqdn(q.name)}
	if q.search && conf != nil {
		names = conf.NameList(q.name)
	}
	for i, name := range names {
		answer, took, err := q.ask(name)
		if err != nil {
			fmt.Fprintf(s.Err, ";; %v\n;; no servers could be reached\n", err)
			return noAnswer
		}
		if len(answer.Answer) > 0 || i == len(names)-1 {
			q.print(s, answer, took)
			return nil
		}
	}
	return nil
}

func parseDig(args []string) (question, error) {
	q := question{name: ".", kind: dns.TypeA, port: "53", timeout: 5 * time.Second, tries: 3}
	named := false
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case strings.HasPrefix(a, "@"):
			q.server = a[1:]
		case strings.HasPrefix(a, "+"):
			if err := q.option(a[1:]); err != nil {
				return q, err
			}
		case a == "-x" || a == "-p" || a == "-t":
			if i++; i == len(args) {
				return q, fmt.Errorf("%s needs a value", a)
			}
			if err := q.flag(a, args[i]); err != nil {
				return q, err
			}
			named = named || a == "-x"
		default:
			if t, ok := dns.StringToType[strings.ToUpper(a)]; ok && (named || len(args) > 1) {
				q.kind = t
				continue
			}
			q.name, named = a, true
		}
	}
	if !named {
		q.kind = dns.TypeNS
	}
	return q, nil
}

func (q *question) flag(name, value string) (err error) {
	switch name {
	case "-p":
		q.port = value
	case "-t":
		t, ok := dns.StringToType[strings.ToUpper(value)]
		if !ok {
			return fmt.Errorf("type %q is not known", value)
		}
		q.kind = t
	case "-x":
		q.name, err = dns.ReverseAddr(value)
		q.kind = dns.TypePTR
	}
	return err
}

func (q *question) option(text string) error {
	name, value, _ := strings.Cut(text, "=")
	var n int
	_, err := fmt.Sscan(value, &n)
	switch {
	case name == "short":
		q.short = true
	case name == "tcp" || name == "vc":
		q.tcp = true
	case name == "search":
		q.search = true
	case name == "time" || name == "timeout":
		q.timeout = time.Duration(n) * time.Second
		return err
	case name == "tries" || name == "retry":
		q.tries = max(1, n)
		return err
	case strings.HasPrefix(name, "no"): // +noall, +nocmd: what is printed here is little already
	case name == "answer":
	default:
		return fmt.Errorf("option +%s is not known", name)
	}
	return nil
}

func (q question) ask(name string) (*dns.Msg, time.Duration, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, q.kind)
	m.SetEdns0(1232, false)
	c := &dns.Client{Timeout: q.timeout}
	if q.tcp {
		c.Net = "tcp"
	}
	addr := net.JoinHostPort(q.server, q.port)
	for try := 1; ; try++ {
		answer, took, err := c.Exchange(m, addr)
		if err == nil && answer.Truncated && c.Net == "" {
			c.Net = "tcp"
			continue
		}
		if err == nil || try >= q.tries {
			return answer, took, err
		}
	}
}

func (q question) print(s applet.IO, m *dns.Msg, took time.Duration) {
	if q.short {
		for _, rr := range m.Answer {
			fmt.Fprintln(s.Out, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		return
	}
	fmt.Fprintf(s.Out, ";; status: %s, id: %d, flags:%s\n", dns.RcodeToString[m.Rcode], m.Id, flagText(m))
	for _, part := range []struct {
		name string
		rrs  []dns.RR
	}{{"ANSWER", m.Answer}, {"AUTHORITY", m.Ns}, {"ADDITIONAL", m.Extra}} {
		printSection(s, part.name, part.rrs)
	}
	fmt.Fprintf(s.Out, "\n;; Query time: %d msec\n;; SERVER: %s\n", took.Milliseconds(), net.JoinHostPort(q.server, q.port))
}

func printSection(s applet.IO, name string, rrs []dns.RR) {
	first := true
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		if first {
			fmt.Fprintf(s.Out, "\n;; %s SECTION:\n", name)
			first = false
		}
		fmt.Fprintln(s.Out, rr)
	}
}

func flagText(m *dns.Msg) string {
	out := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Response, "qr"}, {m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}} {
		if f.on {
			out += " " + f.name
		}
	}
	return out
}

// resolve finds one address for host.
func resolve(ctx context.Context, host, family string) (net.IP, error) {
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip"+family, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip, nil
		}
	}
	return ips[0], nil
}
