package nlmsg

import (
	"testing"

	"golang.org/x/sys/unix"
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
