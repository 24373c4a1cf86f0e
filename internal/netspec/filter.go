package netspec

import (
	"fmt"
	"net/netip"
)

// Segment is one subnet of a network behind one of our bridges. It is what the
// firewall needs to deny by ingress interface: an address inside Subnet may be
// reached from Link only, and from elsewhere only by a published port.
type Segment struct {
	Link       string       // the bridge
	Subnet     netip.Prefix // masked
	Masquerade bool         // source NAT for what leaves by another interface
	Internal   bool         // nothing leaves, nothing enters
}

func (s Segment) Key() Key {
	return Key{RankFilter, "", "segment " + s.Link + " " + s.Subnet.String()}
}

// Publish gives one host port, or Count of them with equal offsets, to a
// container. HostIP is a local address, or the unspecified address of a family
// for every local address of that family but loopback ones (see Loopback).
type Publish struct {
	Proto    string // tcp, udp, sctp
	HostIP   netip.Addr
	HostPort uint16
	Count    uint16 // ports in a row, at least 1
	To       netip.Addr
	ToPort   uint16
	Link     string // the bridge that To is behind
}

func (p Publish) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("publish %s %s %d", p.Proto, p.HostIP, p.HostPort)}
}

// Loopback sends the host's own connections to 127.0.0.1:HostPort or
// [::1]:HostPort to a container, at connect(2), so that no packet with a
// loopback address ever leaves the machine's lo. HostIP is 127.0.0.0/8 or ::1.
type Loopback struct {
	Proto    string // tcp, udp
	HostIP   netip.Addr
	HostPort uint16
	To       netip.Addr
	ToPort   uint16
}

func (l Loopback) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("loopback %s %s %d", l.Proto, l.HostIP, l.HostPort)}
}

// DNSRedirect sends what processes in NS send to 127.0.0.11:53, UDP and TCP, to
// 127.0.0.11:Port in the same namespace. Nothing is bound to port 53 there.
type DNSRedirect struct {
	NS   NS
	Port uint16
}

func (d DNSRedirect) Key() Key { return Key{RankFilter, d.NS, "dns"} }
