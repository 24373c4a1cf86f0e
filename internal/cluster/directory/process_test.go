package directory_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/store/etcd"
)

// memberIn is the environment of a process that is a member, and no test.
const memberIn = "ISLE_TEST_MEMBER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(memberIn); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is a member, as isled has it, until nobody holds its standard input any more.
func serve(dir string) error {
	id, err := pki.Load(dir)
	if err != nil {
		return err
	}
	c := member.Config{Dir: filepath.Join(dir, "etcd"), Name: "one", Identity: id, Revoked: filepath.Join(dir, "revoked"), Addr: netip.MustParseAddr("127.0.0.1"), Fast: true}
	for i, p := range []*uint16{&c.ClientPort, &c.PeerPort} {
		n, err := strconv.ParseUint(strings.Split(os.Getenv(memberIn+"_PORTS"), ",")[i], 10, 16)
		if err != nil {
			return err
		}
		*p = uint16(n)
	}
	m, err := member.Start(c)
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is a member in a process of its own, so that what it takes can be seen.
type process struct {
	pid      int
	url      string
	identity *pki.Identity
}

func startProcess(b *testing.B) process {
	b.Helper()
	dir, ports := b.TempDir(), []string{freePort(b), freePort(b)}
	p := process{url: "https://127.0.0.1:" + ports[0], identity: identity(b, dir)}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), memberIn+"="+dir, memberIn+"_PORTS="+strings.Join(ports, ","))
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { hold.Close(); cmd.Wait() })
	p.pid = cmd.Process.Pid
	return p
}

// identity is of a cluster that has just been made, in dir.
func identity(b *testing.B, dir string) *pki.Identity {
	b.Helper()
	ca, err := pki.NewCA("one")
	if err != nil {
		b.Fatal(err)
	}
	key, req, err := pki.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	cert, err := ca.Sign(req, pki.Subject{ID: "one", Addr: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		b.Fatal(err)
	}
	id, err := pki.Write(dir, ca.Cert, cert, key)
	if err != nil {
		b.Fatal(err)
	}
	der, err := ca.Revoke(nil)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "revoked"), der, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	return id
}

func freePort(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// client is one host's connection.
func (p process) client(b *testing.B) *clientv3.Client {
	b.Helper()
	c, err := etcd.Dial{Endpoints: []string{p.url}, TLS: p.identity.ClientTLS()}.Open()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// cpu is the processor time that the member has used.
func (p process) cpu() time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a tick, wherever Linux shows them
}

// memory is what the member has in memory by itself, and how much that was at most, in MB.
func (p process) memory() (now, most float64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	return line(string(text), "RssAnon:"), line(string(text), "VmHWM:")
}

func line(text, name string) float64 {
	_, rest, _ := strings.Cut(text, name)
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb / 1024
}

// database is how large its file is, in MB.
func (p process) database(b *testing.B, c *clientv3.Client) float64 {
	st, err := c.Status(context.Background(), p.url)
	if err != nil {
		b.Fatal(err)
	}
	return float64(st.DbSize) / (1 << 20)
}
