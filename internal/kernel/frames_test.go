package kernel

import (
	"bytes"
	"testing"
	"time"

	"isle/internal/netspec"
)

// TestFrames: packets with addresses that nobody gave the hosts get from one to the
// other, those to the port and no others; the station is found; and closing ends it.
func TestFrames(t *testing.T) {
	t.Parallel()
	a, b := newMachine(t), newMachine(t)
	underlay(t, a, b)
	for _, c := range []struct {
		v6           bool
		at, from, to string
	}{{false, "10.8.0.2", "10.1.0.2", "10.1.0.1"}, {true, "fd00:8::2", "fd00:1::2", "fd00:1::1"}} {
		near, err := a.Frames("under", c.v6, 51870)
		if err != nil {
			t.Fatal(err)
		}
		far, err := b.Frames("under", c.v6, 51870)
		if err != nil {
			t.Fatal(err)
		}
		mac, ok, end := netspec.MAC{}, false, time.Now().Add(20*time.Second)
		for ; !ok && time.Now().Before(end); time.Sleep(time.Millisecond) {
			if mac, ok, err = near.Station(ip(c.at)); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, err := near.Station(ip(c.from)); ok || err != nil {
			t.Errorf("a station is found that nobody is: %v", err)
		}
		right := udp(ip(c.from), ip(c.to), 51870, []byte("right"))
		for _, packet := range [][]byte{
			udp(ip(c.from), ip(c.to), 51871, []byte("another port")), segment(ip(c.from), ip(c.to), 51870, syn, []byte("another protocol")), right,
		} {
			if err := near.Send(packet, mac); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 2048)
		n, from, err := far.Receive(got)
		if err != nil || !bytes.Equal(got[:n], right) || from == (netspec.MAC{}) || from == mac {
			t.Errorf("%x from %s, %v", got[:n], hw(from), err)
		}
		closed := make(chan error)
		go func() { _, _, err := far.Receive(got); closed <- err }()
		if err := far.Close(); err != nil {
			t.Error(err)
		}
		if err := <-closed; err == nil {
			t.Error("it goes on after it was closed")
		}
		near.Close()
	}
	if _, err := a.Frames("nowhere", false, 1); err == nil {
		t.Error("a link that is not there")
	}
}
