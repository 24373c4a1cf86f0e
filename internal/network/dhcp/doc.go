// Package dhcp gets the addresses of an endpoint from the LAN that it is on:
// DHCPv4, DHCPv6 and router advertisements. docs/dhcp.md says what is sent when.
//
// It asks, keeps asking in time, and says what it was given. It changes nothing:
// the caller puts the addresses, routes and names of a Lease where they belong,
// and keeps the Lease for the next start.
//
//	client, lease, err := dhcp.Acquire(ctx, dhcp.Config{
//		Do: inNamespace, Interface: "eth0", MAC: mac, Hostname: "web",
//		Changed: func(c dhcp.Change) { … },
//	})
//	…
//	err = client.Release(ctx) // or Close, which leaves the lease to the next start
//
//	client.go          one lease over its life: Acquire, Acquire6, Release
//	config.go          what the caller gives, checked
//	lease.go           what the caller gets
//	obtain4.go         from nothing, or from a former lease, to a lease
//	keep4.go           T1, T2, the end of it, giving it back
//	message4.go        what is sent; parse4.go what is believed of an answer
//	arp.go             is an address used already, and where is a server
//	obtain6.go …       the same for IPv6, with advert.go for routers
//	socket.go          packet sockets; filter.go, frame.go what passes them
//	tally.go           what was tried, for the sentence of an error
//
// Traps. Packets are sent and read on packet sockets, so neither an address nor
// a route is needed, and what the container filters does not matter. A socket
// keeps a network namespace alive: DHCPv4 has one only while it asks, IPv6 all
// the time, until Close. Config.Changed is called by the client's goroutine and
// must not call Release or Close, which wait for it.
package dhcp
