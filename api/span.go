package api

import (
	"net/netip"
	"time"
)

// NetworkSpan is where in a cluster a network is: the member Cluster of
// GET /networks/{id}?verbose=true, for networks of a cluster.
type NetworkSpan struct {
	VNI      uint32 // RFC 7348 section 5
	Here     bool   // containers of this host are on it
	Removed  bool   `json:",omitempty"` // gone in the cluster; it stays here until the last of them is gone
	Known    bool   // the cluster was heard of; otherwise the rest is not complete
	Revision int64  // of the cluster's memory, that this is from
	Hosts    []SpanHost
	// Endpoints are its containers on all hosts, by host and name.
	Endpoints []SpanEndpoint
}

// SpanHost is a host that has containers on a network.
type SpanHost struct {
	ID, Name   string
	Address    netip.Addr // where its tunnels end
	Containers int
	Self       bool   `json:",omitempty"`
	Way        string `json:",omitempty"` // direct, or tunnel; "": this host, or the network is not here
	// State is how the way of the network's tunnels to it is: "up", "down" (it does not
	// answer), "narrow" (frames larger than Fit do not arrive), "corrupt" (frames arrive
	// with wrong checksums) or "unknown" (too early, or this host is not on the network).
	// None for the host that was asked.
	State       string    `json:",omitempty"`
	LastContact time.Time `json:",omitzero"` // that it answered by that way
	Fit         int       `json:",omitempty"`
}

// SpanEndpoint is a container on a network.
type SpanEndpoint struct {
	Endpoint, Container, Host string
	Addresses                 []netip.Prefix
	MAC                       string
}
