package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/directory"
	"isle/internal/cluster/door"
	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/fabric"
	"isle/internal/store/etcd"
)

const (
	unlockFile  = "unlock.key"  // on hosts that have a door
	revokedFile = "revoked.crl" // RFC 5280 section 5
	// A part that failed waits for so long before it is started again.
	againMin, againMax = time.Second, 10 * time.Second
	// prefix is before all keys of an etcd inside of isled.
	prefix = "/isle"
)

// session is being in a cluster: from Start, Init or Join until Leave or the end of isled.
type session struct {
	c         *Cluster
	self      self
	settled   bool // it was one before isled was started
	log       *slog.Logger
	identity  *pki.Identity
	client    *clientv3.Client
	store     etcd.Store
	directory *directory.Directory
	known     atomic.Pointer[known]
	wanted    atomic.Int64           // members; 0: not read yet
	unseated  atomic.Pointer[string] // why this host could not become a member
	clocks    clocks
	refused   atomic.Bool // the members have nothing to do with this host

	doorMu   sync.Mutex // one host comes in after another
	openOnce sync.Once
	opened   chan struct{} // closed when the door is open for the first time

	memberMu sync.Mutex
	member   *member.Member // nil: it is not running

	stop context.CancelFunc
	done sync.WaitGroup
}

// open makes a session out of what is on the disk. Nothing runs yet.
func (c *Cluster) open(v self) (*session, error) {
	id, err := pki.Load(c.Dir)
	if err != nil {
		return nil, err
	}
	s := &session{c: c, self: v, identity: id, opened: make(chan struct{}), log: c.Log.With("cluster", v.Cluster[:min(len(v.Cluster), 12)])}
	s.known.Store(&known{})
	if s.client, err = c.dial(v, id); err != nil {
		return nil, err
	}
	s.store = etcd.Store{Client: s.client, Prefix: c.prefix()}
	s.directory = directory.New(directory.Config{
		Store: s.store, Self: fabric.Host{ID: v.ID, Name: v.Name, Addr: v.Addr}, TTL: c.Lease, Lease: v.Lease, Log: s.log,
		Remember: func(lease int64) error {
			return c.changeSelf(context.Background(), func(v *self) { v.Lease = lease })
		},
	})
	return s, nil
}

func (c *Cluster) prefix() string {
	if c.External != nil && c.External.Prefix != "" {
		return c.External.Prefix + "/"
	}
	return prefix + "/"
}

// dial opens a client of the cluster's memory.
func (c *Cluster) dial(v self, id *pki.Identity) (*clientv3.Client, error) {
	if !v.External {
		return etcd.Dial{Endpoints: v.Endpoints, TLS: id.ClientTLS()}.Open()
	}
	if c.External == nil {
		return nil, fmt.Errorf("the cluster's memory is an etcd of others: %w", errNoExternal)
	}
	return c.External.Open()
}

// start starts all parts, each of which starts again when it fails. What it returns ends
// with them.
func (s *session) start(life context.Context) context.Context {
	ctx, cancel := context.WithCancel(life)
	s.stop = cancel
	s.keep(ctx, "directory", s.directory.Run)
	s.keep(ctx, "hosts", s.followHosts)
	s.keep(ctx, "removed hosts", s.followRemoved)
	s.keep(ctx, "certificate", s.renewals)
	if s.self.Member {
		s.keep(ctx, "door", s.serveDoor)
	}
	if s.self.Member && !s.self.External {
		s.keep(ctx, "etcd", s.keepMember)
	}
	return ctx
}

// keep has a part run until ctx ends. What goes wrong in the same way again and again is
// told once.
func (s *session) keep(ctx context.Context, part string, run func(context.Context) error) {
	s.done.Go(func() {
		told := ""
		for pause := againMin; ; pause = min(2*pause, againMax) {
			begun := time.Now()
			err := run(ctx)
			if ctx.Err() != nil {
				return
			}
			if time.Since(begun) > againMax {
				pause = againMin
			}
			if errdefs.IsPermissionDenied(err) {
				s.refused.Store(true)
			}
			if text := fmt.Sprint(err); text != told {
				s.log.Warn("a part of the cluster has ended and is started again", "part", part, "error", err)
				told = text
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
}

// close ends all parts.
func (s *session) close() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
	s.client.Close()
	s.memberMu.Lock()
	defer s.memberMu.Unlock()
	if s.member != nil {
		s.member.Close()
		s.member = nil
	}
}

// startMember starts the etcd of this host, if it does not run.
func (s *session) startMember() (*member.Member, error) {
	s.memberMu.Lock()
	defer s.memberMu.Unlock()
	if s.member != nil {
		return s.member, nil
	}
	if _, err := os.Stat(filepath.Join(member.DataDir(s.c.Dir), "member")); s.settled && !s.self.Learning && err != nil { // an etcd that begins anew would be another cluster
		return nil, fmt.Errorf("the files of the cluster's memory are gone: %w: %w (hint: isle cluster leave --force, isle cluster rm %s on another host, and join again)", err, errdefs.ErrDataLoss, s.self.Name)
	}
	if err := s.ensureRevoked(); err != nil {
		return nil, err
	}
	v := s.self
	m, err := member.Start(member.Config{
		Dir: member.DataDir(s.c.Dir), Name: v.ID, Identity: s.identity, Revoked: s.path(revokedFile), Addr: v.Addr,
		ClientPort: v.Ports.Client, PeerPort: v.Ports.Peer, Peers: v.Peers, Refuse: s.refuse, Log: s.log, Fast: s.c.Fast,
	})
	if err != nil {
		return nil, err
	}
	s.member = m
	return m, nil
}

// keepMember has the etcd run until ctx ends.
func (s *session) keepMember(ctx context.Context) error {
	m, err := s.startMember()
	if err != nil {
		return err
	}
	tidied := make(chan struct{})
	tidying, stop := context.WithCancel(ctx)
	go func() { defer close(tidied); m.Tidy(tidying, s.log) }()
	defer func() { stop(); <-tidied }()
	select {
	case <-ctx.Done():
	case <-m.Done():
		err = errors.New("etcd has ended by itself: this host was removed from the cluster, or its disk fails")
	}
	s.memberMu.Lock()
	defer s.memberMu.Unlock()
	m.Close()
	s.member = nil
	return err
}

// ensureRevoked makes an empty file where there is none: etcd cannot do without.
func (s *session) ensureRevoked() error {
	if _, err := os.Stat(s.path(revokedFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ca, err := pki.NewCA("") // whoever signs it: the file is trusted, not its signature
	if err != nil {
		return err
	}
	der, err := ca.Revoke(nil)
	if err != nil {
		return err
	}
	return pki.WriteFile(s.path(revokedFile), der)
}

func (s *session) path(name string) string { return filepath.Join(s.c.Dir, name) }

// serveDoor lets others in until ctx ends.
func (s *session) serveDoor(ctx context.Context) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(s.self.Addr, s.self.Ports.Door).String())
	if err != nil {
		return fmt.Errorf("open the door for hosts that join: %w", err)
	}
	s.openOnce.Do(func() { close(s.opened) })
	d := &door.Server{Clerk: s, Identity: s.identity, Log: s.log}
	return d.Serve(ctx, l)
}
