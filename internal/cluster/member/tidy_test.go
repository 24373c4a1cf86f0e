package member_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/store"
	"isle/internal/store/etcd"
)

// TestFull: a member whose file is full of what is old refuses changes, says so, and is
// of use again after it has tidied up.
func TestFull(t *testing.T) {
	l := newLab(t)
	c := l.config("a")
	c.Quota = 16 << 20
	m := l.start(c)
	client := l.client(c.Identity, c)
	fill(t, client, func(i int) string { return "/isle/same" })
	if !m.Full() {
		t.Fatal("it is not full")
	}
	refused := etcd.Store{Client: client, Prefix: "/isle/"}.Update(t.Context(), func(tx store.Tx) error { tx.Put("x", nil); return nil })
	if !errdefs.IsResourceExhausted(refused) {
		t.Errorf("a change is refused with %v", refused)
	}
	st, err := client.Status(t.Context(), client.Endpoints()[0])
	if err != nil || len(st.Errors) == 0 || !strings.Contains(st.Errors[0], "NOSPACE") {
		t.Errorf("its status: %v, %v", st, err)
	}
	before := m.Bytes()
	l.must(m.TidyNow(t.Context()))
	if after := m.Bytes(); m.Full() || after > before/2 {
		t.Errorf("still full: %v; %d bytes, before %d", m.Full(), after, before)
	}
	l.must(put(client))
}

// TestFullOfNew: what is not old is kept, and the member goes on to say that it is full.
func TestFullOfNew(t *testing.T) {
	l := newLab(t)
	c := l.config("a")
	c.Quota = 16 << 20
	m := l.start(c)
	client := l.client(c.Identity, c)
	n := 0
	for range 10 { // each time what is empty is used up
		from := n
		n += fill(t, client, func(i int) string { return fmt.Sprint("/isle/", from+i) })
		l.must(m.TidyNow(t.Context()))
		if m.Full() {
			break
		}
	}
	got, err := client.Get(t.Context(), "/isle/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || got.Count != int64(n) || !m.Full() {
		t.Errorf("%v of %d records, full: %v, %v", got, n, m.Full(), err)
	}
}

// fill writes until there is no room.
func fill(t *testing.T, c *clientv3.Client, key func(int) string) (n int) {
	t.Helper()
	value := strings.Repeat("x", 500<<10)
	for n < 100 {
		_, err := c.Put(t.Context(), key(n), value)
		switch {
		case errors.Is(err, rpctypes.ErrNoSpace):
			return n
		case err != nil:
			t.Fatal(err)
		}
		n++
	}
	t.Fatal("it does not fill up")
	return n
}
