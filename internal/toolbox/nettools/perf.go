package nettools

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"isle/internal/toolbox/applet"
)

// perfPort is iperf's.
const perfPort = "5201"

// The client's first line says what the server is to do.
const (
	wordUpload   = "upload\n"   // read all there is
	wordDownload = "download\n" // write until the client closes
	wordPing     = "ping\n"     // send back every byte
)

type perf struct {
	server, reverse, latency, json bool

	streams int
	time    time.Duration
	family  string
	s       applet.IO
}

// result is what perf prints, and its JSON.
type result struct {
	Mode    string  `json:"mode"`
	Peer    string  `json:"peer"`
	Seconds float64 `json:"seconds"`

	Streams       int     `json:"streams,omitempty"`
	Bytes         int64   `json:"bytes,omitempty"`
	BitsPerSecond float64 `json:"bits_per_second,omitempty"`

	RoundTrips int     `json:"round_trips,omitempty"`
	MinUs      float64 `json:"min_us,omitempty"`
	MedianUs   float64 `json:"median_us,omitempty"`
	P99Us      float64 `json:"p99_us,omitempty"`
	MaxUs      float64 `json:"max_us,omitempty"`
}

// Perf measures throughput and latency over TCP: perf -s [:PORT] and perf HOST[:PORT].
func Perf(ctx context.Context, s applet.IO, args []string) error {
	p := perf{s: s}
	fs := applet.Flags(s, "perf -s [ADDR:PORT] | perf [-RLj] [-t TIME] [-P STREAMS] HOST[:PORT]")
	fs.BoolVarP(&p.server, "server", "s", false, "answer clients")
	fs.BoolVarP(&p.reverse, "reverse", "R", false, "the server sends")
	fs.BoolVarP(&p.latency, "latency", "L", false, "round trips of one byte")
	fs.BoolVarP(&p.json, "json", "j", false, "print JSON")
	fs.IntVarP(&p.streams, "parallel", "P", 1, "connections")
	fs.DurationVarP(&p.time, "time", "t", 5*time.Second, "how long")
	four := fs.BoolP("ipv4", "4", false, "IPv4 only")
	six := fs.BoolP("ipv6", "6", false, "IPv6 only")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	p.family = family(*four, *six)
	if p.server {
		return p.serve(ctx, fs.Arg(0))
	}
	if err := applet.Need(fs, 1); err != nil {
		return err
	}
	r, err := p.measure(ctx, withPort(fs.Arg(0)))
	if err != nil {
		return err
	}
	return p.print(r)
}

func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), perfPort)
}

func (p perf) serve(ctx context.Context, addr string) error {
	if addr == "" {
		addr = ":" + perfPort
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp"+p.family, addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.s.Err, "listening on tcp %s\n", l.Addr())
	return servePerf(l)
}

func servePerf(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go answerPerf(c)
	}
}

// answerPerf does what the client's first line says, until the client closes.
func answerPerf(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	word, err := in.ReadString('\n')
	if err != nil {
		return
	}
	switch word {
	case wordUpload:
		n, _ := io.Copy(io.Discard, in) // the end of the connection is the end of the test
		fmt.Fprintln(c, n)
	case wordDownload:
		io.CopyBuffer(c, struct{ io.Reader }{zeroes{}}, make([]byte, 128<<10))
	case wordPing:
		io.Copy(c, in)
	}
}

func (p perf) measure(ctx context.Context, addr string) (result, error) {
	switch {
	case p.latency:
		return p.roundTrips(ctx, addr)
	case p.reverse:
		return p.throughput(ctx, addr, "download", p.download)
	}
	return p.throughput(ctx, addr, "upload", p.upload)
}

func (p perf) dial(ctx context.Context, addr, word string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp"+p.family, addr)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(c, word)
	return c, err
}

func (p perf) throughput(ctx context.Context, addr, mode string, one func(context.Context, string) (int64, error)) (result, error) {
	start := time.Now()
	counts := make([]int64, p.streams)
	group, ctx := errgroup.WithContext(ctx)
	for i := range counts {
		group.Go(func() (err error) { counts[i], err = one(ctx, addr); return err })
	}
	if err := group.Wait(); err != nil {
		return result{}, err
	}
	r := result{Mode: mode, Peer: addr, Seconds: time.Since(start).Seconds(), Streams: p.streams}
	for _, n := range counts {
		r.Bytes += n
	}
	r.BitsPerSecond = float64(r.Bytes) * 8 / r.Seconds
	return r, nil
}

// upload writes for the time and counts what the server has got.
func (p perf) upload(ctx context.Context, addr string) (int64, error) {
	c, err := p.dial(ctx, addr, wordUpload)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(p.time)); err != nil {
		return 0, err
	}
	_, err = io.CopyBuffer(c, struct{ io.Reader }{zeroes{}}, make([]byte, 128<<10))
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		return 0, fmt.Errorf("the server closed the connection: %w", err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	var got int64
	_, err = fmt.Fscan(c, &got)
	return got, err
}

func (p perf) download(ctx context.Context, addr string) (int64, error) {
	c, err := p.dial(ctx, addr, wordDownload)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(p.time)); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return n, nil
	}
	return n, fmt.Errorf("the server closed the connection: %w", err)
}

func (p perf) roundTrips(ctx context.Context, addr string) (result, error) {
	c, err := p.dial(ctx, addr, wordPing)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	var took []time.Duration
	one := []byte{1}
	start := time.Now()
	for time.Since(start) < p.time && ctx.Err() == nil {
		sent := time.Now()
		if _, err := c.Write(one); err != nil {
			return result{}, err
		}
		if _, err := io.ReadFull(c, one); err != nil {
			return result{}, err
		}
		took = append(took, time.Since(sent))
	}
	slices.Sort(took)
	r := result{Mode: "latency", Peer: addr, Seconds: time.Since(start).Seconds(), RoundTrips: len(took)}
	if len(took) > 0 {
		r.MinUs, r.MaxUs = us(took[0]), us(took[len(took)-1])
		r.MedianUs, r.P99Us = us(took[len(took)/2]), us(took[len(took)*99/100])
	}
	return r, nil
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (p perf) print(r result) error {
	if p.json {
		return json.NewEncoder(p.s.Out).Encode(r)
	}
	if r.Mode == "latency" {
		fmt.Fprintf(p.s.Out, "%d round trips with %s: min %.1f, median %.1f, p99 %.1f, max %.1f µs\n", r.RoundTrips, r.Peer, r.MinUs, r.MedianUs, r.P99Us, r.MaxUs)
		return nil
	}
	fmt.Fprintf(p.s.Out, "%s, %s, %d streams: %s bytes in %.2f s, %.2f Mbit/s\n", r.Mode, r.Peer, r.Streams, applet.Human(r.Bytes), r.Seconds, r.BitsPerSecond/1e6)
	return nil
}
