package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside runs f in the network namespace of a process. What it opens stays there.
func inside(pid string, f func() error) error { return within("/proc/"+pid+"/ns/net", f) }

// within is inside of the namespace of a file.
func within(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func dialIn(ctx context.Context, pid, network, addr string) (c net.Conn, err error) {
	err = inside(pid, func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// resolve asks as a container does.
func resolve(pid, name string) ([]netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialIn(ctx, pid, network, "127.0.0.11:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.LookupNetIP(ctx, "ip", name+".")
}

// addresses are those of a container, but its own of loopback and its links.
func addresses(pid string) (out []netip.Addr, err error) {
	var all []net.Addr
	err = inside(pid, func() (err error) { all, err = net.InterfaceAddrs(); return err })
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() {
			out = append(out, p.Addr())
		}
	}
	return out, err
}

// flow is a connection between two containers, both of whose ends the test holds.
type flow struct{ from, to net.Conn }

// connect opens one to an address of b, which has to work at once.
func connect(t *testing.T, a, b box, addr string) flow {
	t.Helper()
	var l net.Listener
	err := inside(b.pid, func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); return err })
	if err != nil {
		t.Fatalf("%s listens on %s: %v", b.name, addr, err)
	}
	defer l.Close()
	from, err := dialIn(t.Context(), a.pid, "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("%s to %s: %v", a.name, b.name, err)
	}
	to, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close(); to.Close() })
	return flow{from, to}
}

// pass sends a byte, which has to arrive before long.
func (f flow) pass() error {
	if _, err := f.from.Write([]byte{'x'}); err != nil {
		return err
	}
	f.to.SetReadDeadline(time.Now().Add(60 * time.Second))
	_, err := f.to.Read(make([]byte, 1))
	return err
}

// goesOn: the flow works for as long as what is done lasts.
func goesOn(t *testing.T, f flow, what string, do func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			if err := f.pass(); err != nil {
				done <- fmt.Errorf("after %d: %w", n, err)
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	do()
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("%s: the flow has ended: %v", what, err)
	}
}
