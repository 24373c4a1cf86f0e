package api

import "net/netip"

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
}

// SpanEndpoint is a container on a network.
type SpanEndpoint struct {
	Endpoint, Container, Host string
	Addresses                 []netip.Prefix
	MAC                       string
}
