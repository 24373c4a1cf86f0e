package seat_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/seat"
	"isle/internal/netspec"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var mark = rtnl.Mark{Group: 77, Prefix: "isle"}

// machine is a host with a container.
type machine struct {
	host, in kerneltest.NS
	seats    *seat.Seats
	dir      netns.Dir
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{host: kerneltest.NewNS(t), dir: netns.Dir{Path: t.TempDir()}}
	if _, err := m.dir.New("c"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.dir.Delete("c") }) // some tests end it before
	f, err := os.Open(m.dir.File("c"))
	if err != nil {
		t.Fatal(err)
	}
	m.in = kerneltest.Wrap(t, f)
	t.Cleanup(m.in.Close)
	m.host.Do(func() (err error) {
		m.seats, err = seat.Open(mark)
		return err
	})
	t.Cleanup(func() { _ = m.seats.Close() })
	return m
}

func (m machine) seat() netspec.Seat {
	return netspec.Seat{Source: "p0", NSPath: m.dir.File("c"), Name: "eth0", Owner: "endpoint1", MAC: netspec.MAC{2, 0, 0, 0, 0, 9}}
}

// take moves a veth's end in whose other end is a port of a bridge.
func (m machine) take(t *testing.T, w netspec.Seat) netspec.Seated {
	t.Helper()
	m.host.IP(`link add br0 type bridge
link add h0 type veth peer name p0
link set h0 master br0 up
link add eth0 type ifb
link set p0 up`)
	got, err := m.seats.Take(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestWayThere : the link is inside, as it is to be, and comes back as it was.
func TestWayThere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	got := m.take(t, w)
	if got.Kind != "veth" || got.Host != "h0" || got.MAC != w.MAC || got.MTU != 1500 || got.Peer == 0 {
		t.Errorf("seated: %+v", got)
	}
	if out := m.in.Run("ip", "-d", "link", "show", "eth0"); !strings.Contains(out, ",UP") || !strings.Contains(out, "02:00:00:00:00:09") || !strings.Contains(out, "alias isle-seat endpoint1 p0") {
		t.Error(out)
	}
	if out := m.in.Run("ip", "-6", "addr", "show", "eth0"); out != "" {
		t.Errorf("it has IPv6 that nobody gave it: %s", out)
	}
	if err := m.seats.Check(t.Context(), w, got); err != nil {
		t.Error(err)
	}
	m.in.IP("link set eth0 down")
	if err := m.seats.Check(t.Context(), w, got); !errdefs.IsFailedPrecondition(err) {
		t.Error("down:", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := m.seats.Return(t.Context(), w, got); err != nil {
			t.Fatal(err)
		}
	}
	if out := m.host.Run("ip", "link", "show", "p0"); strings.Contains(out, ",UP") || strings.Contains(out, "isle-seat") {
		t.Errorf("back on the host: %s", out)
	}
	if err := m.seats.Check(t.Context(), w, got); !errdefs.IsNotFound(err) {
		t.Error("after the return:", err)
	}
}

// TestIPv6 : only one that is to have addresses has IPv6, and waits for nobody.
func TestIPv6(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	w.IPv6 = true
	m.take(t, w)
	m.in.IP("addr add fd00::5/64 dev eth0")
	if out := m.in.Run("ip", "-6", "addr", "show", "eth0"); !strings.Contains(out, "fd00::5/64") || strings.Contains(out, "tentative") {
		t.Error(out)
	}
}

// TestRefused : a link that the host uses stays where it is.
func TestRefused(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ setUp, text string }{
		"missing":         {"", "not on the host"},
		"port":            {"link add p0 type ifb\nlink add br0 type bridge\nlink set p0 master br0", "a port of another link"},
		"bridge":          {"link add p0 type bridge", "is a bridge"},
		"address":         {"link add p0 type ifb\naddr add 10.1.2.3/24 dev p0", "has the address 10.1.2.3"},
		"IPv6 address":    {"link add p0 type ifb\naddr add fd00::9/64 dev p0", "has the address fd00::9"},
		"default route":   {"link add p0 type ifb\nlink set p0 up\nroute add default dev p0", "default route"},
		"default route 6": {"link add p0 type ifb\nlink set p0 up\n-6 route add default dev p0", "default route"},
		"ours":            {"link add islex type ifb\nlink set islex group 77", "one of Isle's own"},
		"lo":              {"", "loopback"},
		"no name":         {"", "no name of a link"},
		"taken inside":    {"link add p0 type ifb", "a link eth0 in the container already"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.host.IP(c.setUp)
			w := m.seat()
			switch what {
			case "ours":
				w.Source = "islex"
			case "lo":
				w.Source = "lo"
			case "no name":
				w.Source = "p%d"
			case "taken inside":
				m.in.IP("link add eth0 type ifb")
			}
			before := m.host.Run("ip", "-d", "addr")
			if _, err := m.seats.Take(t.Context(), w); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %q", err, c.text)
			}
			if after := m.host.Run("ip", "-d", "addr"); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// TestCarrier : a link that others are on is the host's.
func TestCarrier(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.host.IP("link add p0 type ifb\nlink add m0 link p0 type macvlan mode bridge")
	if _, err := m.seats.Take(t.Context(), m.seat()); err == nil || !strings.Contains(err.Error(), "m0 of the host is on it") {
		t.Error(err)
	}
}

// TestOwnAddress : a plugin may have left the endpoint's own address on the link.
func TestOwnAddress(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.host.IP("link add h0 type veth peer name p0\naddr add 10.1.2.3/24 dev p0")
	w := m.seat()
	w.Addrs = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/16")}
	if _, err := m.seats.Take(t.Context(), w); err != nil {
		t.Error(err)
	}
	if out := m.in.Run("ip", "addr", "show", "eth0"); strings.Contains(out, "10.1.2.3") {
		t.Errorf("addresses are planned, not brought along: %s", out)
	}
}

// TestHalfWay : when the kernel refuses a part, the link is back.
func TestHalfWay(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(*netspec.Seat){
		"a group address":    func(w *netspec.Seat) { w.MAC = netspec.MAC{1} },
		"no name for a link": func(w *netspec.Seat) { w.Name = "eth0/1" },
	} {
		m := newMachine(t)
		m.host.IP("link add h0 type veth peer name p0")
		w := m.seat()
		spoil(&w)
		if _, err := m.seats.Take(t.Context(), w); err == nil {
			t.Fatalf("%s was taken", what)
		}
		m.host.Run("ip", "link", "show", "p0")
		if out := m.in.Run("ip", "-br", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("%s: left inside: %s", what, out)
		}
	}
}

// TestRenamedInside : the link is known by what those inside cannot choose.
func TestRenamedInside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	got := m.take(t, w)
	m.in.IP("link set eth0 down\nlink set eth0 name mine alias other\nlink add eth0 type veth peer name x0")
	if err := m.seats.Check(t.Context(), w, got); !errdefs.IsFailedPrecondition(err) {
		t.Error(err)
	}
	if err := m.seats.Return(t.Context(), w, got); err != nil {
		t.Fatal(err)
	}
	m.host.Run("ip", "link", "show", "p0")
	m.in.Run("ip", "link", "show", "eth0")
}

// TestForgedInside : a link that was made inside does not get out to the host.
func TestForgedInside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	got := m.take(t, w)
	m.in.IP("link del eth0")
	if out, err := m.in.Try("ip", "link", "add", "eth0", "index", itoa(got.Index), "type", "veth", "peer", "name", "x0", "index", itoa(got.Peer)); err != nil {
		t.Fatal(out)
	}
	if err := m.seats.Return(t.Context(), w, got); err != nil {
		t.Fatal(err)
	}
	if out, err := m.host.Try("ip", "link", "show", "p0"); err == nil {
		t.Errorf("a link from inside is on the host: %s", out)
	}
}

// TestRecordLost : after a crash between the move and the record the alias is enough.
func TestRecordLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	m.take(t, w)
	other := w
	other.Source, other.Owner = "", "endpoint2"
	if err := m.seats.Return(t.Context(), other, netspec.Seated{}); err != nil {
		t.Fatal(err)
	}
	m.in.Run("ip", "link", "show", "eth0") // it is another endpoint's
	w.Source = ""
	if err := m.seats.Return(t.Context(), w, netspec.Seated{}); err != nil {
		t.Fatal(err)
	}
	m.host.Run("ip", "link", "show", "p0")
}

// TestNameTaken : the link waits inside while its name is another's on the host.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	got := m.take(t, w)
	m.host.IP("link add p0 type ifb")
	if err := m.seats.Return(t.Context(), w, got); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	m.in.Run("ip", "link", "show", "eth0")
}

// TestNamespaceGone : what went with its namespace needs no way back.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	w := m.seat()
	got := m.take(t, w)
	if err := m.dir.Delete("c"); err != nil {
		t.Fatal(err)
	}
	if err := m.seats.Return(context.Background(), w, got); err != nil {
		t.Error(err)
	}
	w.NSPath = filepath.Join(t.TempDir(), "none")
	if err := m.seats.Return(context.Background(), w, got); err != nil {
		t.Error(err)
	}
	if _, err := m.seats.Take(context.Background(), w); err == nil {
		t.Error("a link was moved into nothing")
	}
}
func itoa(i int32) string { return strconv.Itoa(int(i)) }
