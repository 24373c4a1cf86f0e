package lan

import (
	"os/exec"
	"strings"
)

// testParent: the interface goes down, is renamed, is taken away and comes back. It is told
// in inspect; the container's address is the same afterwards, and the LAN is told where it is.
func testParent(b *bench) {
	b.network("wire", on("macvlan")...)
	b.run("web", "wire", "--ip", "10.88.0.140", "--ip6", "fd88::140", "--mac-address", "02:88:00:00:01:40")
	b.uplinkIs("lan0: up")
	b.reached(b.near, "10.88.0.140")

	b.host("link set lan0 down")
	b.uplinkIs("lan0: down")
	b.wire.forget()
	b.host("link set lan0 up")
	b.back("down and up")

	b.sw.IP("link set p-lan0 down")
	b.uplinkIs("lan0: up, but without carrier")
	b.wire.forget()
	b.sw.IP("link set p-lan0 up")
	b.back("unplugged and plugged")

	b.rename("lan0", "wan0")
	b.uplinkIs("lan0: up, renamed to wan0")
	b.reached(b.near, "10.88.0.140")
	b.rename("wan0", "lan0")
	b.uplinkIs("lan0: up")

	b.host("link del lan0")
	b.uplinkIs("lan0: missing")
	if out, err := b.Try("run", "--rm", "--network", "wire", "isle/toolbox", "true"); err == nil {
		b.t.Errorf("a container was let on an interface that is not there\n%s", out)
	}
	b.uplink()
	b.wire = watch(b.t, b.sw, "p-lan0")
	b.back("removed and made again")
	b.clear("wire", "web")
}

// rename takes the interface down: older kernels rename none that is up.
func (b *bench) rename(from, to string) {
	b.t.Helper()
	b.host("link set " + from + " down")
	b.host("link set " + from + " name " + to)
	b.host("link set " + to + " up")
}

// uplinkIs waits until inspect tells this of the interface.
func (b *bench) uplinkIs(words string) {
	b.t.Helper()
	b.eventually(`"Uplink": "`+words, func() (string, error) { return b.Try("network", "inspect", "wire") })
}

// back: the LAN is told, and reaches the container.
func (b *bench) back(after string) {
	b.t.Helper()
	b.t.Log("after:", after)
	b.uplinkIs("lan0: up")
	b.wire.saw("02:88:00:00:01:40 > .*ARP announce 10.88.0.140")
	b.wire.saw("02:88:00:00:01:40 > .*NA announce fd88::140")
	b.reached(b.near, "10.88.0.140")
	b.reached(b.near, "[fd88::140]")
}

// testHostAccess: the host and a container with an address of the LAN's server reach each
// other; no machine of the LAN ever hears the host's address at another MAC address.
func testHostAccess(b *bench) {
	b.dnsmasq("eth0", pool...)
	b.network("wire", asksLAN("lan")...)
	b.run("web", "wire")
	hello := func() (string, error) {
		out, err := exec.Command("curl", "-s", "--max-time", "2", "http://10.88.0.50/").CombinedOutput()
		return string(out), err
	}
	b.eventually("to 10.88.0.1:", hello)
	b.reaches("web", "10.88.0.1", true)
	b.host("link set lan0 down")
	b.host("link set lan0 up")
	b.eventually("to 10.88.0.1:", hello)
	b.reached(b.near, "10.88.0.50")
	b.eventually("bytes from", func() (string, error) { return toolbox(b.near, "ping", "-c", "1", "-W", "2", "10.88.0.1") })
	b.wire.saw(".*ARP 10.88.0.1 is at " + b.mac("lan0"))
	for _, line := range b.wire.lines(`.*ARP (announce )?10\.88\.0\.1 (is )?at`) {
		if !strings.HasSuffix(line, b.mac("lan0")) {
			b.t.Errorf("the LAN hears of the host at another place: %s", line)
		}
	}
	b.clear("wire", "web")
}

// testVLAN: a container is on its VLAN alone: its server gives it the address, and nothing
// of it is on the LAN beside. The VLAN's interface goes with the network.
func testVLAN(b *bench) {
	b.vlan()
	b.dnsmasq("eth0", pool...)
	b.dnsmasq("eth0.50", "--dhcp-range=10.89.0.50,10.89.0.59,255.255.255.0,2m", "--dhcp-option=option:router,10.89.0.254")
	tagged, beside := watch(b.t, b.router, "eth0.50"), watch(b.t, b.near, "eth0")
	b.network("wire", "-d", "macvlan", "-o", "parent=lan0.50", "--ipam-driver", "dhcp")
	const mac = "02:88:00:00:00:53"
	b.run("web", "wire", "--mac-address", mac)
	b.has("web", "10.89.0.50", "10.89.0.254")
	tagged.saw(mac+" > .*DHCP DISCOVER", ".*DHCP ACK 10.89.0.50", mac+" > .*ARP announce 10.89.0.50")
	b.reached(b.router, "10.89.0.50")
	b.reaches("web", "10.88.0.2", false)
	b.clear("wire", "web")
	tagged.saw(mac + " > .*DHCP RELEASE 10.89.0.50")
	beside.not(mac)
}
