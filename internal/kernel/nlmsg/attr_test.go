package nlmsg

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttrs(t *testing.T) {
	b := Header(1, 2, 3, 4).U8(1, 7).Str(2, "eth0").Nest(3, func(a *Attrs) { a.U32(4, 5).B32(6, 7) }).Data()
	if len(b)%4 != 0 {
		t.Errorf("length %d", len(b))
	}
	b = b[4:]
	if Str(Find(b, 2)) != "eth0" || U32(Find(b, 3, 4)) != 5 || B32(Find(b, 3, 6)) != 7 || Find(b, 3, 9) != nil || Find(b, 1)[0] != 7 {
		t.Errorf("read back: %v", b)
	}
}

func TestErrorText(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Get(Message{Type: unix.RTM_GETLINK, Data: Header(make([]byte, unix.SizeofIfInfomsg)...).Str(unix.IFLA_IFNAME, "none").Data()})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v", err)
	}
}

// FuzzAttrs : no message makes the walk run away or read past its end.
func FuzzAttrs(f *testing.F) {
	f.Add(Header().U8(1, 7).Nest(3, func(a *Attrs) { a.U32(4, 5) }).Data())
	f.Add([]byte{3, 0, 1, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for _, d := range Each(b) {
			n += 4 + len(d)
		}
		if n > len(b) {
			t.Errorf("%d bytes of attributes in %d", n, len(b))
		}
		for _, a := range split(b) {
			if len(a.Data) > len(b) {
				t.Errorf("%d bytes of data in %d", len(a.Data), len(b))
			}
		}
	})
}
