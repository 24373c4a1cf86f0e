package lan

import "fmt"

// pool is the router's DHCP server for lan0's LAN.
var pool = []string{"--dhcp-range=10.88.0.50,10.88.0.59,255.255.255.0,2m", "--dhcp-option=option:router,10.88.0.254"}

// asksLAN are the arguments of a network whose addresses the LAN gives out.
func asksLAN(driver string, more ...string) []string {
	return append([]string{"-d", driver, "-o", "parent=lan0", "--ipam-driver", "dhcp"}, more...)
}

// testLease: the messages of a lease, from a container's start to its end. A restart of
// isled asks for the same address again.
func testLease(b *bench) {
	b.dnsmasq("eth0", append(pool, "--dhcp-option=option:T1,6", "--dhcp-option=option:T2,100")...)
	b.network("wire", asksLAN("macvlan")...)
	const mac, all = "02:88:00:00:00:50", "ff:ff:ff:ff:ff:ff"
	b.run("web", "wire", "--mac-address", mac)
	b.has("web", "10.88.0.50", "10.88.0.254")
	b.wire.saw(
		mac+" > "+all+": DHCP DISCOVER", ".* > .*: DHCP OFFER 10.88.0.50", mac+" > "+all+": DHCP REQUEST 10.88.0.50 .0.0.0.0 > ", ".*: DHCP ACK 10.88.0.50",
		mac+" > "+all+": ARP probe 10.88.0.50", mac+" > "+all+": ARP announce 10.88.0.50",
		mac+" > "+b.routerMAC()+": DHCP REQUEST 10.88.0.50 .10.88.0.50 > 10.88.0.254", ".*: DHCP ACK 10.88.0.50") // the last two: T1
	b.wire.forget()
	b.Kill()
	if err := b.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.has("web", "10.88.0.50", "10.88.0.254")
	b.wire.saw(mac+" > .*DHCP REQUEST 10.88.0.50", ".*DHCP ACK 10.88.0.50")
	b.wire.not(".*DHCP (DISCOVER|RELEASE)")
	b.reached(b.near, "10.88.0.50")
	b.clear("wire", "web")
	b.wire.saw(mac + " > .*DHCP RELEASE 10.88.0.50")
}

// has checks what isle says of a container's IPv4, and that the container has it.
func (b *bench) has(name, addr, gateway string) {
	b.t.Helper()
	b.eventually(addr, func() (string, error) { return b.address(name, "wire", "IPAddress"), nil })
	if got := b.address(name, "wire", "Gateway"); got != gateway {
		b.t.Errorf("%s: gateway %s, want %s", name, got, gateway)
	}
	b.eventually(addr+"/24", func() (string, error) { return b.Try("exec", name, "ip", "addr", "show", "dev", "eth0") })
	b.eventually("default via "+gateway, func() (string, error) { return b.Try("exec", name, "ip", "route") })
}

// testDuplicate: an address that a neighbour has, whatever the server believes, is
// declined and not used; the neighbour never loses it.
func testDuplicate(b *bench) {
	b.near.IP("addr add 10.88.0.50/24 dev eth0")
	b.dnsmasq("eth0", pool...)
	b.network("wire", asksLAN("macvlan")...)
	const mac = "02:88:00:00:00:51"
	b.run("web", "wire", "--mac-address", mac)
	b.wire.saw(".*DHCP ACK 10.88.0.50", mac+" > .*ARP probe 10.88.0.50", ".*ARP 10.88.0.50 is at", mac+" > .*DHCP DECLINE 10.88.0.50",
		mac+" > .*DHCP DISCOVER", ".*DHCP ACK 10.88.0.51", mac+" > .*ARP announce 10.88.0.51")
	b.wire.not(mac + " > .*ARP announce 10.88.0.50")
	b.has("web", "10.88.0.51", "10.88.0.254")
}

// testIPvlanLeases: containers with the host's MAC address are told apart by client ids.
func testIPvlanLeases(b *bench) {
	b.dnsmasq("eth0", pool...)
	b.network("wire", asksLAN("ipvlan")...)
	for i, name := range []string{"web", "db"} {
		b.run(name, "wire")
		addr := fmt.Sprintf("10.88.0.5%d", i)
		b.has(name, addr, "10.88.0.254")
		b.wire.saw(b.mac("lan0")+" > .*DHCP DISCOVER", ".*DHCP ACK "+addr)
		b.reached(b.near, addr)
	}
	b.Isle(b.t, "rm", "-f", "db")
	b.wire.saw(b.mac("lan0") + " > .*DHCP RELEASE 10.88.0.51")
	b.reached(b.near, "10.88.0.50")
}

// testAdvertised: an address by DHCPv6 and one of the advertised prefix, of a router that
// others wrote; the default route leads to it, and the server gets its address back.
func testAdvertised(b *bench) {
	b.dnsmasq("eth0", append(pool, "--enable-ra", "--dhcp-range=fd88::50,fd88::5f,slaac,64,10m", "--ra-param=eth0,10,600")...)
	b.network("wire", asksLAN("macvlan", "--ipv6")...)
	const mac = "02:88:00:00:00:52"
	b.run("web", "wire", "--mac-address", mac)
	b.wire.saw(mac+" > .*RS ", ".*RA fe80::")
	b.wire.saw(mac+" > .*DHCPv6 SOLICIT", ".*DHCPv6 REPLY fd88::5")
	addr := b.address("web", "wire", "GlobalIPv6Address")
	addrs := func() (string, error) { return b.Try("exec", "web", "ip", "addr", "show", "dev", "eth0") }
	b.eventually(addr+"/", addrs)
	b.eventually("fd88::88:ff:fe00:52/64", addrs) // of the prefix and the MAC address
	b.eventually("default via fe80::", func() (string, error) { return b.Try("exec", "web", "ip", "-6", "route") })
	b.reached(b.near, "["+addr+"]")
	b.Isle(b.t, "rm", "-f", "web")
	b.wire.saw(mac+" > .*DHCPv6 RELEASE fd88::5", ".*DHCPv6 REPLY")
}
