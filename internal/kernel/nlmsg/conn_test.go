package nlmsg

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/probe"
)

// TestManyAnswers : each message has an answer of its own, and there is room for
// all of them.
func TestManyAnswers(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	msgs := make([]Message, 2000)
	for i := range msgs {
		msgs[i] = Message{Type: unix.RTM_GETLINK, Data: Header(make([]byte, unix.SizeofIfInfomsg)...).Str(unix.IFLA_IFNAME, "not-there").Data()}
	}
	errs, err := c.Execute(msgs...)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range errs {
		if e == nil {
			t.Fatalf("message %d was answered as if there was such a link", i)
		}
	}
}

// TestForgedAnswer: only the kernel answers.
func TestForgedAnswer(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	forger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forger)
	done := Header().Raw(make([]byte, unix.SizeofNlMsghdr+4)).Data()
	binary.NativeEndian.PutUint32(done, uint32(len(done)))
	binary.NativeEndian.PutUint16(done[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(done[8:], c.seq+1)
	if err := unix.Sendto(forger, done, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.PortID()}); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "sending to netlink sockets of others without CAP_NET_ADMIN", Err: err})
	}
	if as, err := c.Ready(); err != nil || len(as) > 0 {
		t.Errorf("read: %v, %v", as, err)
	}
	if err := unix.Sendto(forger, done, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.PortID()}); err != nil {
		t.Fatal(err)
	}
	err = c.Do(Message{Type: unix.RTM_GETLINK, Data: Header(make([]byte, unix.SizeofIfInfomsg)...).Str(unix.IFLA_IFNAME, "not-there").Data()})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("a link that is not there: %v", err)
	}
}
