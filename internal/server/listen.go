package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/activation"
)

const socketMode = 0o660

// Listen opens the places where the API is to be had: unix:///path,
// tcp://addr:port, and fd:// for sockets that systemd hands over. All or none.
// group may use the unix sockets; one that does not exist leaves them to root.
func (s *Server) Listen(hosts []string, group string) ([]net.Listener, error) {
	var all []net.Listener
	for _, h := range hosts {
		ls, err := s.listen(h, group)
		if err != nil {
			for _, l := range all {
				_ = l.Close()
			}
			return nil, fmt.Errorf("listen on %s: %w", h, err)
		}
		all = append(all, ls...)
	}
	return all, nil
}

func (s *Server) listen(host, group string) ([]net.Listener, error) {
	scheme, addr, ok := strings.Cut(host, "://")
	if !ok {
		return nil, invalid("%q has no scheme; hint: unix:///path or tcp://address:port", host)
	}
	switch scheme {
	case "unix":
		l, err := s.listenUnix(addr, group)
		return []net.Listener{l}, err
	case "tcp":
		l, err := s.listenTCP(addr)
		return []net.Listener{l}, err
	case "fd":
		return activated()
	}
	return nil, invalid("scheme %q is none of unix, tcp, fd", scheme)
}

// activated are the sockets that systemd has opened (LISTEN_FDS).
func activated() ([]net.Listener, error) {
	ls, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	var usable []net.Listener
	for _, l := range ls {
		if l != nil {
			usable = append(usable, l)
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("systemd handed over no sockets; hint: start isled by its socket unit: %w", errdefs.ErrFailedPrecondition)
	}
	return usable, nil
}

func (s *Server) listenTCP(addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !a.Addr().Unmap().IsLoopback() {
		s.Log.Warn("the API is open to the network without TLS: whoever reaches it is root on this host", "address", l.Addr().String())
	}
	return l, nil
}

// listenUnix makes the socket under another name and renames it when owner and
// mode are right: there is no moment in which others may connect, and none
// without a socket when an old one is replaced.
func (s *Server) listenUnix(path, group string) (net.Listener, error) {
	if err := replaceable(path); err != nil {
		return nil, err
	}
	tmp := path + "." + strconv.Itoa(os.Getpid())
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			return nil, invalid("path of %d bytes is too long for a unix socket: %w", len(tmp), err)
		}
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	u := &unixListener{UnixListener: l, path: path}
	if err := s.settleSocket(u, tmp, group); err != nil {
		_ = l.Close()
		_ = os.Remove(tmp)
		return nil, err
	}
	return u, nil
}

func (s *Server) settleSocket(u *unixListener, tmp, group string) error {
	if err := os.Chown(tmp, os.Getuid(), s.gid(group)); err != nil {
		return err
	}
	if err := os.Chmod(tmp, socketMode); err != nil {
		return err
	}
	info, err := os.Lstat(tmp)
	if err != nil {
		return err
	}
	u.info = info
	return os.Rename(tmp, u.path)
}

// replaceable reports why the path must be left alone: something is there that
// is not a socket, or somebody answers on it.
func replaceable(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: %w", path, errdefs.ErrAlreadyExists)
	}
	c, err := (&net.Dialer{}).DialContext(context.Background(), "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%s is in use; hint: is another isled running?: %w", path, errdefs.ErrAlreadyExists)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s may be in use: %w", path, err)
	}
	return nil
}

// gid is -1, which changes nothing, when there is no such group.
func (s *Server) gid(group string) int {
	if group == "" {
		return -1
	}
	if n, err := strconv.Atoi(group); err == nil {
		return n
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		s.Log.Warn("no such group: only root may use the API; hint: groupadd "+group, "group", group)
		return -1
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return n
}

// unixListener removes its socket when it is closed, unless somebody has put
// another in its place.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}
