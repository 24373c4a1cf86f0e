package nettools

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

type ping struct {
	count, size        int
	interval, deadline time.Duration
	quiet              bool
	s                  applet.IO

	ip      net.IP
	name    string
	conn    *icmp.PacketConn
	raw     bool // a raw socket sees everybody's answers
	id      int
	times   []time.Duration
	sent    int
	request icmp.Type
	proto   int
}

// Ping sends echo requests. Status 1 when no answer came.
func Ping(ctx context.Context, s applet.IO, args []string) error {
	p := ping{s: s, id: os.Getpid() & 0xffff}
	fs := applet.Flags(s, "ping [-46q] [-c COUNT] [-i SECONDS] [-W SECONDS] [-s SIZE] HOST")
	fs.IntVarP(&p.count, "count", "c", 0, "how many; 0 until stopped")
	interval := fs.Float64P("interval", "i", 1, "seconds between them")
	wait := fs.Float64P("timeout", "W", 2, "seconds to wait for an answer")
	fs.IntVarP(&p.size, "size", "s", 56, "bytes of data")
	fs.BoolVarP(&p.quiet, "quiet", "q", false, "only the summary")
	four := fs.BoolP("ipv4", "4", false, "IPv4 only")
	six := fs.BoolP("ipv6", "6", false, "IPv6 only")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	p.interval, p.deadline = seconds(*interval), seconds(*wait)
	p.name = fs.Arg(0)
	var err error
	if p.ip, err = resolve(ctx, p.name, family(*four, *six)); err != nil {
		return err
	}
	if err := p.open(); err != nil {
		return err
	}
	defer p.conn.Close()
	return p.run(ctx)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// open takes a datagram socket, which needs no privilege where the kernel's
// ping_group_range allows it, else a raw one.
func (p *ping) open() error {
	udp, raw, any := "udp4", "ip4:icmp", "0.0.0.0"
	p.request, p.proto = ipv4.ICMPTypeEcho, 1
	if p.ip.To4() == nil {
		udp, raw, any = "udp6", "ip6:ipv6-icmp", "::"
		p.request, p.proto = ipv6.ICMPTypeEchoRequest, 58
	}
	var err, rawErr error
	if p.conn, err = icmp.ListenPacket(udp, any); err == nil {
		return nil
	}
	p.raw = true
	if p.conn, rawErr = icmp.ListenPacket(raw, any); rawErr != nil {
		return fmt.Errorf("open an ICMP socket: %w", errors.Join(err, rawErr))
	}
	return nil
}

func (p *ping) to() net.Addr {
	if p.raw {
		return &net.IPAddr{IP: p.ip}
	}
	return &net.UDPAddr{IP: p.ip}
}

func (p *ping) run(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	fmt.Fprintf(p.s.Out, "PING %s (%s): %d data bytes\n", p.name, p.ip, p.size)
	start := time.Now()
	for ctx.Err() == nil && (p.count == 0 || p.sent < p.count) {
		next := time.After(p.interval)
		if err := p.one(); err != nil {
			fmt.Fprintln(p.s.Err, "ping:", err)
		}
		if p.count != 0 && p.sent == p.count {
			break
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
	return p.summary(time.Since(start))
}

// one sends one request and waits for its answer.
func (p *ping) one() error {
	p.sent++
	m := icmp.Message{Type: p.request, Body: &icmp.Echo{ID: p.id, Seq: p.sent, Data: make([]byte, p.size)}}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := p.conn.WriteTo(b, p.to()); err != nil {
		return err
	}
	if err := p.conn.SetReadDeadline(start.Add(p.deadline)); err != nil {
		return err
	}
	buf := make([]byte, 65535)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("no answer from %s for seq %d", p.ip, p.sent)
		}
		if err != nil {
			return err
		}
		if !p.isAnswer(buf[:n]) {
			continue
		}
		p.answered(n, from, time.Since(start))
		return nil
	}
}

func (p *ping) isAnswer(b []byte) bool {
	m, err := icmp.ParseMessage(p.proto, b)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
		return false
	}
	e, ok := m.Body.(*icmp.Echo)
	return ok && e.Seq == p.sent&0xffff && (!p.raw || e.ID == p.id) // a datagram socket has an id of the kernel's
}

func (p *ping) answered(n int, from net.Addr, took time.Duration) {
	p.times = append(p.times, took)
	if !p.quiet {
		host, _, err := net.SplitHostPort(from.String())
		if err != nil {
			host = from.String()
		}
		fmt.Fprintf(p.s.Out, "%d bytes from %s: seq=%d time=%.3f ms\n", n, host, p.sent, ms(took))
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (p *ping) summary(took time.Duration) error {
	got := len(p.times)
	fmt.Fprintf(p.s.Out, "\n--- %s ping statistics ---\n%d packets transmitted, %d packets received, %d%% packet loss, time %.0f ms\n",
		p.name, p.sent, got, 100*(p.sent-got)/max(1, p.sent), ms(took))
	if got == 0 {
		return applet.Exit(1)
	}
	least, most, sum := time.Duration(math.MaxInt64), time.Duration(0), time.Duration(0)
	for _, t := range p.times {
		least, most, sum = min(least, t), max(most, t), sum+t
	}
	fmt.Fprintf(p.s.Out, "round-trip min/avg/max = %.3f/%.3f/%.3f ms\n", ms(least), ms(sum/time.Duration(got)), ms(most))
	return nil
}
