package live_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/pulse"
)

// sees is how host h sees the way of tunnels to another one.
func (h *member) sees(id string) pulse.Report { return h.pulse.Reports()[id] }

// filter puts rules between the hosts: what of the switch passes. Behind br_netfilter: it
// leaves out what has its own priority, 0.
func filter(wire kerneltest.NS, rules ...string) {
	wire.Run("nft", "add table bridge between; add chain bridge between pass { type filter hook forward priority 1; }; flush chain bridge between pass")
	for _, r := range rules {
		wire.Run("nft", "add rule bridge between pass "+r)
	}
}

// TestTrial: whether tunnels carry, and how much, is found out as it is: with all in
// order; where large packets are lost in silence in one direction, to the byte; where
// nothing passes; and with a host that is gone.
func TestTrial(t *testing.T) {
	wire, c, all := gatherOn(t, 2)
	a, b := all[0], all[1]
	shared(t, all, nil)
	const way = 1500 - 50
	up := func(h *member, id string) bool {
		r := h.sees(id)
		return r.State == pulse.Up && r.Tried && r.MTU == way
	}
	soon(t, "both are up", func() bool { return up(a, "b") && up(b, "a") })

	const passes = 1400 // of the packet outside
	filter(wire, fmt.Sprintf("ip saddr 10.8.0.1 udp dport 4789 ip length > %d drop", passes))
	a.anew(t)
	is := func(h *member, id string, want pulse.Contact) func() bool {
		return func() bool {
			got := h.sees(id).Contact
			want.Last, want.Tried, want.MTU = got.Last, got.Tried, got.MTU
			return got == want
		}
	}
	soon(t, "a black hole from a to b", is(a, "b", pulse.Contact{State: pulse.Narrow, Fit: passes - 50, There: true}))
	if p := a.sees("b").Problem(); !strings.Contains(p, "host b") || !strings.Contains(p, "black hole") || !strings.Contains(p, "1350") {
		t.Errorf("it says %q", p)
	}
	soon(t, "b knows of it", is(b, "a", pulse.Contact{State: pulse.Narrow, Fit: passes - 50, Back: true}))
	filter(wire)
	a.anew(t)
	soon(t, "both are up again", func() bool { return up(a, "b") && up(b, "a") })

	filter(wire, "udp dport 4789 drop")
	a.anew(t)
	soon(t, "nothing passes", is(a, "b", pulse.Contact{State: pulse.Down, There: true, Back: true}))
	filter(wire)
	a.anew(t)
	soon(t, "both are up for the third time", func() bool { return up(a, "b") })
	b.end()
	soon(t, "the one without isled is down", func() bool { return a.sees("b").State == pulse.Down })
	last := a.sees("b").Last
	time.Sleep(2 * time.Second) // in which it is asked again
	if got := a.sees("b").Last; !got.Equal(last) {
		t.Errorf("the last contact goes on: %s, it was %s", got, last)
	}
	b.dir.Cut(false)
	c.Expire("b")
	soon(t, "the one whose lease has ended is gone", func() bool { _, there := a.pulse.Reports()["b"]; return !there })
	for _, o := range observe(t, a.kernel) {
		if f, ok := o.(netspec.FDB); ok {
			t.Errorf("%v is left", f)
		}
	}
}

// shared makes a network with a container on each host, so that they ask for each other
// often.
func shared(t *testing.T, all []*member, options map[string]string) (eps []network.Endpoint) {
	t.Helper()
	if _, err := all[0].m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", Options: options}); err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		soon(t, "the network is there", func() bool { return h.knows("app") })
		eps = append(eps, h.open(h.m, "on-"+h.dir.View().Self, nil, "app").Endpoints[0])
	}
	return eps
}

// TestTrialCorrupt: a network card that computes checksums wrongly inside of tunnels, and
// something on the way that changes what is inside, are named.
func TestTrialCorrupt(t *testing.T) {
	const sum = "@th,608,16" // of UDP, within IPv6, Ethernet and VXLAN
	for what, rule := range map[string]string{
		"the checksum": "ip saddr 10.8.0.1 udp dport 4789 " + sum + " set 0x1234 udp checksum set 0",
		"the data":     "ip saddr 10.8.0.1 udp dport 4789 ip length > 1000 @th,1600,16 set 0x1234 udp checksum set 0",
	} {
		t.Run(what, func(t *testing.T) {
			wire, _, all := gatherOn(t, 2)
			a, b := all[0], all[1]
			shared(t, all, nil)
			unaided(t, a.ns, "under")
			unaided(t, b.ns, "under")
			filter(wire, rule)
			a.anew(t)
			soon(t, "it is seen", func() bool { r := a.sees("b"); return r.State == pulse.Corrupt && r.There && !r.Back })
			soon(t, "b sees it too", func() bool { r := b.sees("a"); return r.State == pulse.Corrupt && r.Back && !r.There })
			if p := a.sees("b").Problem(); !strings.Contains(p, "wrong checksums") || !strings.Contains(p, "host b") {
				t.Errorf("it says %q", p)
			}
		})
	}
}

// unaided has an interface compute no checksums, so that the kernel does before a frame is
// sent: between namespaces it would be left out.
func unaided(t *testing.T, ns kerneltest.NS, link string) {
	t.Helper()
	const setTxChecksums = 0x17 // linux/ethtool.h
	ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		value := struct{ cmd, data uint32 }{setTxChecksums, 0}
		req := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(req.name[:], link)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		return nil
	})
}

// TestTrialSealed: what is encrypted is tried inside of what encrypts it.
func TestTrialSealed(t *testing.T) {
	_, _, all := gatherOn(t, 2)
	a, b := all[0], all[1]
	soon(t, "the keys are known", func() bool {
		v := a.dir.View()
		return v.Hosts["a"].Key != "" && v.Hosts["b"].Key != ""
	})
	shared(t, all, map[string]string{"encrypted": ""})
	way := network.Way{Port: 4790, Sealed: true}.String()
	for _, h := range []struct {
		*member
		other string
	}{{a, "b"}, {b, "a"}} {
		soon(t, "the encrypted way is up", func() bool {
			c, ok := h.pulse.Contact(way, h.other)
			return ok && c.State == pulse.Up && c.Tried && c.MTU == 1500-130
		})
	}
	s, err := a.m.Span(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range s.Hosts {
		if want := map[bool]pulse.State{true: pulse.Unknown, false: pulse.Up}[h.Self]; h.Contact.State != want {
			t.Errorf("host %s is shown as %+v", h.Name, h.Contact)
		}
	}
	if err := a.m.Close(t.Context(), "on-a"); err != nil {
		t.Fatal(err)
	}
	soon(t, "it is tried no more", func() bool { _, ok := a.pulse.Contact(way, "b"); return !ok })
}

// TestUnderlayMTU: what the underlay takes is followed by the tunnel, the bridge, the
// containers, and what is tried, there and back.
func TestUnderlayMTU(t *testing.T) {
	_, _, all := gatherOn(t, 2)
	a := all[0]
	shared(t, all, nil)
	mtus := func() (found []int) {
		_ = a.kernel.Do("on-a", func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				found = append(found, i.MTU)
			}
			return err
		})
		for _, o := range observe(t, a.kernel) {
			switch o := o.(type) {
			case netspec.VXLAN:
				found = append(found, o.MTU)
			case netspec.Link:
				if o.Name != "isle0" {
					found = append(found, o.MTU)
				}
			}
		}
		if r := a.sees("b"); r.Tried && r.State == pulse.Up {
			found = append(found, r.MTU)
		}
		return found
	}
	for _, under := range []int{1500, 1400, 1450} {
		for _, h := range all {
			h.ns.IP(fmt.Sprintf("link set under mtu %d", under))
		}
		soon(t, fmt.Sprintf("all follow the underlay's %d", under), func() bool {
			found := mtus()
			for _, m := range found {
				if m != under-50 {
					return false
				}
			}
			return len(found) == 6 // a container, its veth, two tunnels, a bridge, and the trial
		})
	}
}

// anew has all ways tried again, as an isled does that is started.
func (h *member) anew(t *testing.T) {
	t.Helper()
	h.end()
	h.begin()
}
