package firewalldoc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Questions are sent from ports of their own, one after the other, by which the
// kernel's trace of them is found.
const firstPort = 41000

// witness makes nftables trace our questions, in tables of its own.
const witness = `
table inet witness {
	chain come { type filter hook prerouting priority -400; tcp sport 41000-48999 meta nftrace set 1; udp sport 41000-48999 meta nftrace set 1; icmp type echo-request icmp id 41000-48999 meta nftrace set 1; }
	chain go { type filter hook output priority -400; tcp sport 41000-48999 meta nftrace set 1; udp sport 41000-48999 meta nftrace set 1; icmp type echo-request icmp id 41000-48999 meta nftrace set 1; }
}
table bridge witness {
	chain come { type filter hook prerouting priority -400; tcp sport 41000-48999 meta nftrace set 1; udp sport 41000-48999 meta nftrace set 1; icmp type echo-request icmp id 41000-48999 meta nftrace set 1; meta protocol arp meta nftrace set 1; }
}`

// trace is what our tables decided about questions.
type trace struct {
	sync.Mutex
	port map[string]string   // by the trace's id, of the last packet that had it
	hops map[string][]string // by port
	stop func()

	asked string // the port of the question that waits: ARP belongs to it
}

func (h *host) trace() *trace {
	h.t.Helper()
	in := exec.Command("nft", "-f", "-")
	in.Stdin = strings.NewReader(witness)
	if out, err := in.CombinedOutput(); err != nil {
		h.t.Fatalf("nft: %v\n%s", err, out)
	}
	ctx, stop := context.WithCancel(h.t.Context())
	cmd := exec.CommandContext(ctx, "nft", "monitor", "trace")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	tr := &trace{port: map[string]string{}, hops: map[string][]string{}}
	tr.stop = sync.OnceFunc(func() {
		stop()
		_ = cmd.Wait()
		h.run("nft", "delete table inet witness; delete table bridge witness")
	})
	h.t.Cleanup(tr.stop)
	go tr.read(bufio.NewScanner(out))
	h.awake(tr)
	return tr
}

// awake waits until the witness sees packets.
func (h *host) awake(tr *trace) {
	for range 500 {
		h.port++
		_, _ = h.ask("host", "", "udp", "127.0.0.1:9", time.Millisecond)
		time.Sleep(10 * time.Millisecond)
		if tr.seen() {
			return
		}
	}
	h.t.Fatal("nft shows no traces")
}

func (tr *trace) seen() bool {
	tr.Lock()
	defer tr.Unlock()
	return len(tr.port) > 0
}

var (
	traceLine = regexp.MustCompile(`^trace id (\w+) (\w+) (\w+) (\w+) (\w+)`)
	fromPort  = regexp.MustCompile(`(?:sport|icmp id) (4[1-8]\d{3})\b`)
	decided   = regexp.MustCompile(` rule (.*) \(verdict (\w+)(?: \w+)?\)\s*$`)
	ofSet     = regexp.MustCompile(`@[a-z]+\d?`)
)

func (tr *trace) read(lines *bufio.Scanner) {
	for lines.Scan() {
		if m := traceLine.FindStringSubmatch(lines.Text()); m != nil {
			tr.line(lines.Text(), m[1], m[3], m[4])
		}
	}
}

func (tr *trace) ask(port int) {
	tr.Lock()
	defer tr.Unlock()
	tr.asked = fmt.Sprint(port)
}

// line notes a rule that a packet of a question met. A packet has another id
// where it comes from a bridge to be routed.
func (tr *trace) line(line, id, table, chain string) {
	tr.Lock()
	defer tr.Unlock()
	if m := fromPort.FindStringSubmatch(line); m != nil {
		tr.port[id] = m[1]
	} else if strings.Contains(line, " packet: ") {
		tr.port[id] = "" // ARP
	}
	m := decided.FindStringSubmatch(line)
	if table != "isle" || m == nil {
		return
	}
	port := tr.port[id]
	if port == "" && m[2] == "drop" { // of ARP only what ends a question counts: who is known already is not asked for
		port = tr.asked
	}
	if hop := hop(chain, m[1], m[2]); hop != "" && port != "" && !slices.Contains(tr.hops[port], hop) {
		tr.hops[port] = append(tr.hops[port], hop)
	}
}

// hop is a rule that decides whether and whereto, by its chain and comment.
func hop(chain, rule, verdict string) string {
	comment := commentText.FindStringSubmatch(rule)
	switch {
	case verdict == "jump", chain == "passed", chain == "mss", comment == nil && verdict == "goto":
		return ""
	case verdict == "drop" && comment != nil:
		return fmt.Sprintf("`%s` drops: %s", chain, comment[1])
	case comment != nil:
		return fmt.Sprintf("`%s`: %s", chain, comment[1])
	}
	return fmt.Sprintf("`%s`: %s", chain, strings.Join(ofSet.FindAllString(rule, -1), " "))
}

// way is what is known so far of a question's.
func (tr *trace) way(port int) string {
	tr.Lock()
	defer tr.Unlock()
	if hops := tr.hops[fmt.Sprint(port)]; len(hops) > 0 {
		return strings.Join(hops, "; ")
	}
	return "no rule of ours"
}

// question is a row of a table.
type question struct{ from, to, gets, way string }

// answered asks until what comes is what the row says, or patience ends.
func (h *host) answered(q question, tr *trace) question {
	h.t.Helper()
	tries, patience := 8, 300*time.Millisecond
	if *update {
		tries, patience = 1, time.Second
	}
	got := q
	for range tries {
		if q.gets != nothing {
			patience = 2 * time.Second
		}
		h.port++
		tr.ask(h.port)
		var err error
		if got.gets, err = h.row(q, patience); err != nil {
			h.t.Errorf("%s, %s: %v", q.from, q.to, err)
		}
		if got.way = h.settled(tr, q.way); got.gets == q.gets && got.way == q.way {
			break
		}
	}
	return got
}

// settled waits for the trace of the last question.
func (h *host) settled(tr *trace, want string) (way string) {
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		if way = tr.way(h.port); way == want {
			break
		}
	}
	return h.names.show(way)
}

const nothing = "nothing"

func (h *host) row(q question, patience time.Duration) (string, error) {
	who, as, spoofs := strings.Cut(q.from, " as ")
	f := strings.Fields(q.to)
	if len(f) < 2 {
		return "", errors.New("the second column is not \"tcp ADDRESS:PORT\", \"udp …\" or \"ping ADDRESS\"")
	}
	switch {
	case f[0] == "ping":
		return h.ping(who, f[1], patience)
	case spoofs:
		return h.spoof(who, as, f[1], patience)
	}
	return h.ask(who, "", f[0], f[1], patience)
}

// ask sends a question from the next port and says what came back.
func (h *host) ask(who, as, network, to string, patience time.Duration) (string, error) {
	var got string
	err := h.in(who, func() error {
		d := net.Dialer{Timeout: patience, LocalAddr: h.local(network, as)}
		c, err := d.Dial(network, to)
		if err != nil {
			got = why(err)
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			_, _ = fmt.Fprint(c, h.port) // an error shows at the next read
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if got = string(b[:n]); err != nil {
			got = why(err)
		}
		return nil
	})
	return got, err
}

func (h *host) local(network, as string) net.Addr {
	if network == "udp" {
		return &net.UDPAddr{IP: net.ParseIP(as), Port: h.port}
	}
	return &net.TCPAddr{IP: net.ParseIP(as), Port: h.port}
}

func why(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "hung up"
	}
	return nothing
}

// spoof sends with an address that is not the sender's, after an honest question
// so that neighbours are known. An answer cannot come back: the server is asked.
func (h *host) spoof(who, as, to string, patience time.Duration) (string, error) {
	if _, err := h.ask(who, "", "udp", to, patience); err != nil {
		return "", err
	}
	err := h.in(who, func() error { return program([]string{"ip", "addr", "replace", as + "/32", "dev", "lo"}) })
	if err != nil {
		return "", err
	}
	h.port++
	said := fmt.Sprint(h.port)
	if _, err := h.ask(who, as, "udp", to, 300*time.Millisecond); err != nil {
		return "", err
	}
	if got, ok := h.arrived.Load(said); ok {
		return got.(string), nil
	}
	return nothing, nil
}

// ping sends an echo request whose id is the next port.
func (h *host) ping(who, to string, patience time.Duration) (got string, err error) {
	err = h.in(who, func() error {
		c, err := net.Dial("ip4:icmp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		id := uint16(h.port)
		sum := ^(uint16(8<<8) + id)
		if _, err := c.Write([]byte{8, 0, byte(sum >> 8), byte(sum), byte(id >> 8), byte(id), 0, 0}); err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 100)
		for got = nothing; ; {
			n, err := c.Read(b)
			if err != nil {
				return nil
			}
			// after the header of IPv4
			if echo := b[min(n, 4*int(b[0]&15)):n]; len(echo) >= 8 && echo[0] == 0 && echo[4] == byte(id>>8) && echo[5] == byte(id) {
				got = "an answer"
				return nil
			}
		}
	})
	return got, err
}

// TestWitness : what the pages say of packets comes from the kernel: the trace
// shows the rule that decided.
func TestWitness(t *testing.T) {
	h := newHost(t)
	tr := h.trace()
	h.port++
	if got, err := h.ask("lan", "", "udp", "172.17.0.9:80", 100*time.Millisecond); got != nothing || err != nil {
		t.Errorf("a container's address from outside: %q, %v", got, err)
	}
	want := "`ingress` drops: in by its own bridge, or by an interface that is trusted"
	if got := h.settled(tr, want); got != want {
		t.Errorf("decided by %q, want %q", got, want)
	}
}
