package lan

import (
	"fmt"
	"strings"
	"testing"
)

// testMacvlanModes: who of two containers and a neighbour reaches whom, and what of it
// passes the switch. The switch sends back what comes in where the mode wants it.
func testMacvlanModes(b *bench) {
	for _, c := range []struct {
		mode            string
		hairpin, direct bool // the switch sends back; containers reach each other
		onWire          bool // by the switch
	}{
		{"bridge", false, true, false},
		{"private", true, false, false},
		{"vepa", false, false, false},
		{"vepa", true, true, true},
	} {
		b.t.Run(fmt.Sprintf("%s, hairpin %t", c.mode, c.hairpin), func(t *testing.T) {
			defer b.speak(b.t)
			b.speak(t)
			b.sw.IP(fmt.Sprintf("link set p-lan0 type bridge_slave hairpin %s", map[bool]string{true: "on", false: "off"}[c.hairpin]))
			b.network("wire", on("macvlan", "macvlan_mode="+c.mode)...)
			b.pair()
			b.reaches("web", "10.88.0.2", true)
			b.reaches("web", "fd88::2", true)
			b.reached(b.near, "10.88.0.140")
			b.reaches("web", "10.88.0.1", c.onWire) // the host
			b.wire.forget()
			b.reaches("web", "10.88.0.150", c.direct)
			b.between(c.onWire)
			b.clear("wire", "web", "db")
		})
	}
}

// speak makes failures those of t.
func (b *bench) speak(t *testing.T) { b.t, b.wire.t = t, t }

// pair starts web and db.
func (b *bench) pair() {
	b.t.Helper()
	b.run("web", "wire", "--ip", "10.88.0.140", "--mac-address", "02:88:00:00:01:40")
	b.run("db", "wire", "--ip", "10.88.0.150", "--mac-address", "02:88:00:00:01:50")
}

// between checks whether what web and db say to each other was on the wire.
func (b *bench) between(want bool) {
	b.t.Helper()
	if pattern := "02:88:00:00:01:40 > 02:88:00:00:01:50: IP 10.88.0.140 > 10.88.0.150"; want {
		b.wire.saw(pattern)
	} else {
		b.wire.not(pattern)
	}
}

// clear removes containers and their network; nothing of either stays.
func (b *bench) clear(network string, containers ...string) {
	b.t.Helper()
	b.Isle(b.t, append([]string{"rm", "-f"}, containers...)...)
	b.Isle(b.t, "network", "rm", network)
	b.eventually("none", func() (string, error) { return b.links() })
}

// links are those that isled made on the host: "none" if there are none.
func (b *bench) links() (string, error) {
	var out []string
	for _, l := range b.all() {
		if strings.Contains(l, "macvlan") || strings.Contains(l, "ipvlan") || strings.Contains(l, "lan0.") || strings.Contains(l, "isles") {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return "none", nil
	}
	return strings.Join(out, "\n"), nil
}

// testPrivateLeaks: of what a private container sends to all, another of the same parent
// hears nothing, not even when the switch sends it back.
func testPrivateLeaks(b *bench) {
	b.sw.IP("link set p-lan0 type bridge_slave hairpin on")
	b.network("wire", on("macvlan", "macvlan_mode=private")...)
	b.pair()
	inside := watch(b.t, b.inside("db"), "eth0")
	b.eventually("bytes from", func() (string, error) { return toolbox(b.near, "ping", "-c", "1", "-W", "2", "10.88.0.150") })
	inside.saw(".*IP 10.88.0.2 > 10.88.0.150")
	b.reaches("web", "10.88.0.150", false)
	b.reaches("web", "fd88::beef", false)
	b.wire.saw("02:88:00:00:01:40 > ff:ff:ff:ff:ff:ff: ARP 10.88.0.140 asks for 10.88.0.150", "02:88:00:00:01:40 > 33:33:.*NS fd88::beef")
	inside.not("02:88:00:00:01:40")
}

// testPassthru: one container has the interface and its MAC address, and no other gets it.
func testPassthru(b *bench) {
	b.network("wire", on("macvlan", "macvlan_mode=passthru")...)
	b.run("web", "wire", "--ip", "10.88.0.140")
	b.reached(b.near, "10.88.0.140")
	b.wire.saw(b.mac("lan0") + " > .*IP 10.88.0.140 > 10.88.0.2")
	if out, err := b.Try("run", "--rm", "--network", "wire", "isle/toolbox", "true"); err == nil {
		b.t.Errorf("a second container was let in\n%s", out)
	}
	b.clear("wire", "web")
}

// testAnnounced: the LAN hears where a container is as soon as it is there, by both families.
func testAnnounced(b *bench) {
	b.network("wire", on("macvlan")...)
	b.run("web", "wire", "--ip", "10.88.0.140", "--ip6", "fd88::140", "--mac-address", "02:88:00:00:01:40")
	b.wire.saw("02:88:00:00:01:40 > ff:ff:ff:ff:ff:ff: ARP announce 10.88.0.140 at 02:88:00:00:01:40")
	b.wire.saw("02:88:00:00:01:40 > 33:33:00:00:00:01: NA announce fd88::140")
}

// testIPvlanModes: l2 is on the LAN with the host's MAC address; to l3 and l3s the LAN is
// told a route.
func testIPvlanModes(b *bench) {
	b.near.IP("route add 10.44.0.0/24 via 10.88.0.1")
	for mode, args := range map[string][]string{
		"l2":  on("ipvlan", "ipvlan_mode=l2"),
		"l3":  {"-d", "ipvlan", "-o", "parent=lan0", "-o", "ipvlan_mode=l3", "--subnet", "10.44.0.0/24"},
		"l3s": {"-d", "ipvlan", "-o", "parent=lan0", "-o", "ipvlan_mode=l3s", "--subnet", "10.44.0.0/24"},
	} {
		b.t.Run(mode, func(t *testing.T) {
			defer b.speak(b.t)
			b.speak(t)
			b.network("wire", args...)
			b.run("web", "wire")
			addr := b.address("web", "wire", "IPAddress")
			b.reached(b.near, addr)
			b.wire.saw(b.mac("lan0") + " > .*IP " + addr + " > 10.88.0.2")
			b.clear("wire", "web")
		})
	}
}
