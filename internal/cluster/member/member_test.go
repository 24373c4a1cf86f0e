package member_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// lab makes members of one cluster.
type lab struct {
	*testing.T
	ca      *pki.CA
	revoked string // file
	removed atomic.Value
}

func newLab(t *testing.T) *lab {
	ca, err := pki.NewCA("one")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, ca: ca, revoked: filepath.Join(t.TempDir(), "revoked")}
	l.removed.Store("")
	l.revoke()
	return l
}

func (l *lab) revoke(serials ...string) {
	l.Helper()
	der, err := l.ca.Revoke(serials)
	l.must(err)
	l.must(os.WriteFile(l.revoked, der, 0o600))
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) identity(id string) *pki.Identity {
	l.Helper()
	key, req, err := pki.NewKey()
	l.must(err)
	cert, err := l.ca.Sign(req, pki.Subject{ID: id, Addr: loopback})
	l.must(err)
	i, err := pki.Write(l.TempDir(), l.ca.Cert, cert, key)
	l.must(err)
	return i
}

func port(t *testing.T) uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (l *lab) config(name string) member.Config {
	l.Helper()
	return member.Config{
		Dir: l.TempDir(), Name: name, Identity: l.identity(name), Revoked: l.revoked, Addr: loopback,
		ClientPort: port(l.T), PeerPort: port(l.T), Fast: true,
		Refuse: func(host string) error {
			if host == l.removed.Load() {
				return fmt.Errorf("host %s was removed: %w", host, errdefs.ErrPermissionDenied)
			}
			return nil
		},
	}
}

func (l *lab) start(c member.Config) *member.Member {
	l.Helper()
	m, err := member.Start(c)
	l.must(err)
	l.Cleanup(m.Close)
	ctx, cancel := context.WithTimeout(l.Context(), member.Ready)
	defer cancel()
	l.must(m.Await(ctx))
	return m
}

func (l *lab) client(id *pki.Identity, at ...member.Config) *clientv3.Client {
	l.Helper()
	d := etcd.Dial{TLS: id.ClientTLS()}
	for _, c := range at {
		u := member.URL(c.Addr, c.ClientPort)
		d.Endpoints = append(d.Endpoints, u.String())
	}
	c, err := d.Open()
	l.must(err)
	l.Cleanup(func() { c.Close() })
	return c
}

func put(c *clientv3.Client) error { return putWithin(5*time.Second, c) }

func putWithin(limit time.Duration, c *clientv3.Client) error {
	s := etcd.Store{Client: c, Prefix: "/isle/", Timeout: limit}
	return s.Update(context.Background(), func(tx store.Tx) error { tx.Put("x", nil); return nil })
}

func (l *lab) eventually(try func() error) {
	l.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			l.Fatal(err)
		}
	}
}

// TestStrangers: nobody talks to a member who is not of the cluster, and removed hosts
// are refused on the connections that they have, and on new ones.
func TestStrangers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := l.config("a")
	l.start(c)
	l.must(put(l.client(c.Identity, c)))
	forger := newLab(t)
	forged := forger.identity("a")
	l.must(pki.WriteFile(forged.Path(pki.CAFile), pki.EncodeCert(l.ca.Cert))) // it knows whom to trust
	if err := putWithin(time.Second, l.client(forged, c)); err == nil {
		t.Error("a forged host was let in")
	}
	guest := l.identity("guest")
	open := l.client(guest, c)
	l.must(put(open))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := open.Watch(ctx, "/isle/x")
	l.removed.Store("guest")
	if err := put(open); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a removed host on its old connection: %v", err)
	}
	l.must(put(l.client(c.Identity, c)))
	if resp, ok := <-watch; ok && resp.Err() == nil {
		t.Errorf("a removed host still watches: %+v", resp)
	}
	l.removed.Store("")
	l.revoke(pki.Serial(guest.Cert().Leaf))
	if err := putWithin(time.Second, l.client(guest, c)); err == nil {
		t.Error("a revoked certificate was let in")
	}
}

// TestGrow: a second member joins as a learner, so that the first goes on alone until it
// is there; then the first may be away for a while.
func TestGrow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.config("a"), l.config("b")
	ma := l.start(a)
	client := l.client(a.Identity, a)
	peer := member.URL(b.Addr, b.PeerPort)
	_, err := client.MemberAddAsLearner(t.Context(), []string{peer.String()})
	l.must(err)
	l.must(put(client)) // it is not there yet
	first := member.URL(a.Addr, a.PeerPort)
	b.Peers = "a=" + first.String() + ",b=" + peer.String()
	mb := l.start(b)
	l.eventually(func() error { _, err := client.MemberPromote(t.Context(), mb.ID()); return err })
	own := l.client(b.Identity, b)
	l.eventually(func() error { return put(own) })
	_, err = client.MoveLeader(t.Context(), mb.ID())
	l.must(err)
	l.eventually(func() error { _, err := client.MemberRemove(t.Context(), ma.ID()); return err })
	select {
	case <-ma.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("a member that was removed goes on")
	}
	l.must(put(l.client(b.Identity, b)))
}

// TestRestart: a member has after a restart what it had, and an end does not wait for
// those who are connected.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := l.config("a")
	m, err := member.Start(c)
	l.must(err)
	l.must(m.Await(t.Context()))
	client := l.client(c.Identity, c)
	l.must(put(client))
	watch := client.Watch(t.Context(), "/isle/", clientv3.WithPrefix())
	l.must(put(client))
	<-watch
	before := time.Now()
	m.Close()
	if d := time.Since(before); d > 3*time.Second {
		t.Errorf("the end took %s", d)
	}
	l.start(c)
	resp, err := client.Get(t.Context(), "/isle/x")
	if err != nil || len(resp.Kvs) != 1 {
		t.Errorf("%+v, %v", resp, err)
	}
}

// TestDamaged: damaged files are an error, and not the end of isled.
func TestDamaged(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := l.config("a")
	m, err := member.Start(c)
	l.must(err)
	l.must(m.Await(t.Context()))
	m.Close()
	logs, err := filepath.Glob(filepath.Join(c.Dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) == 0 {
		t.Fatal("there is no log to damage", err)
	}
	b, err := os.ReadFile(logs[0])
	l.must(err)
	for i := 100; i < 400; i++ {
		b[i] ^= 0xff
	}
	l.must(os.WriteFile(logs[0], b, 0o600))
	if m, err := member.Start(c); err == nil {
		m.Close()
		t.Error("it started")
	}
}
