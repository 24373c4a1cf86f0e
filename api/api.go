// Package api has what Isle's own endpoints take and give: those below
// /isle/v1, beside the Docker API. Values only; fields are added, never changed.
//
// A port is written as on the command line:
//
//	[ADDRESS:|if=INTERFACE:][HOST]:CONTAINER[/PROTO][;from=PREFIX,…]
package api

import "time"

// PublishRequest is the body of POST /isle/v1/containers/{id}/publish.
type PublishRequest struct {
	Ports   []string
	Replace bool // take the ports over from whichever container has them
}

// UnpublishRequest is the body of POST /isle/v1/containers/{id}/unpublish. A port
// is named by its host side: "8443", "8443/udp", "127.0.0.1:8443",
// "if=eth0:8443", "8000-8010".
type UnpublishRequest struct {
	Ports []string
}

// PortsResponse is what became of either.
type PortsResponse struct {
	Added    []Port
	Removed  []Port
	Warnings []string
	// AtNextStart: the container does not run, so that only its record was changed.
	AtNextStart bool `json:",omitempty"`
}

// Port is one published port, or Count of them in a row.
type Port struct {
	Container     string // its name
	Proto         string
	Address       string // empty: those of Interface, or not settled before the start
	Interface     string `json:",omitempty"`
	HostPort      uint16 // 0: chosen at the start
	Count         uint16
	ContainerPort uint16
	From          string `json:",omitempty"`
}

// DNSRecord is a name that a network's resolver knows.
type DNSRecord struct {
	Name, Type, Value string
	TTL               uint32
	Container         string
}

// Exposure is everything that can be reached from outside of this host.
type Exposure struct{ Entries []Exposed }

// Exposed is one address and port, or Count of them, and whether it is reached
// in fact.
type Exposed struct {
	Proto, Address                                                   string
	Port, Count                                                      uint16
	Interface, Container, Network, Target, From, By, Verdict, Reason string
}

// Diagnosis is what is wrong with the networks of this host.
type Diagnosis struct{ Findings []Finding }

// Finding is one thing that is wrong, and what can be done.
type Finding struct{ Severity, Subject, Problem, Cause, Hint string }

// ClusterInitRequest is the body of POST /isle/v1/cluster/init.
type ClusterInitRequest struct {
	Name      string // of this host; empty: its host name
	Advertise string // address that other hosts reach this one at; empty: that of the default route
	Members   int    // how many hosts keep the cluster's memory: 1, 3 or 5; 0: 3
}

// ClusterJoinRequest is the body of POST /isle/v1/cluster/join.
type ClusterJoinRequest struct {
	Token     string
	Hosts     []string // tried in order: "address" or "address:port"
	Name      string
	Advertise string
}

// ClusterLeaveRequest is the body of POST /isle/v1/cluster/leave.
type ClusterLeaveRequest struct {
	Force bool // also without telling the others, and while containers are on its networks
}

// ClusterTokenRequest is the body of POST /isle/v1/cluster/token.
type ClusterTokenRequest struct {
	Rotate bool // those that were given out before hold no more
}

// ClusterToken lets hosts in for a while.
type ClusterToken struct {
	Token   string
	Seconds int      // how long it holds
	Hosts   []string // that let hosts in: "address:port"
}

// ClusterKeyRequest is the body of POST /isle/v1/cluster/key.
type ClusterKeyRequest struct {
	Rotate bool // begin to change the key for another one
}

// ClusterKey is the key that a host has for encrypted networks.
type ClusterKey struct {
	Public string // WireGuard's, base64
	Made   time.Time
	Port   int    // UDP
	Old    string // the key before, which is not forgotten yet; empty: there is none
	Coming int    // hosts that use the key before still
}

// ClusterHost is a host of the cluster.
type ClusterHost struct {
	ID, Name, Addr string
	Member         bool // it keeps the cluster's memory
	Alive          bool // its lease holds
	Self           bool // it is the host that was asked
	// Tunnel is how the tunnels to it are, as the host that was asked sees it: "up", "down"
	// (no answer), "narrow" (large frames do not arrive), "corrupt" (frames arrive with
	// wrong checksums) or "unknown" (too early). None for that host itself.
	Tunnel      string    `json:",omitempty"`
	LastContact time.Time `json:",omitzero"`  // that it answered by a tunnel
	Problem     string    `json:",omitempty"` // with its tunnels, in words
	// Warnings are what a host that joins has found out about the ways to the others.
	Warnings []string `json:",omitempty"`
}

// ClusterStatus is how the cluster is, as the host that was asked sees it.
type ClusterStatus struct {
	ID, Host, Name string
	External       bool // its memory is an etcd that others run
	Quorum         bool // changes are possible
	Leader         string
	Members        []ClusterMember
	Hosts, Alive   int
	Revision       int64     // of the memory: the highest that a member has
	Seen           int64     // of what this host knows
	Lag            int64     // between the two
	LastContact    time.Time // with the memory
	CertificateEnd time.Time // of this host's certificate; it is renewed before
	Ignored        []string  // records that cannot be read, and why
	Problem        string    // what is wrong, in words; empty: nothing
}

// ClusterMember is one of those that keep the cluster's memory.
type ClusterMember struct {
	Host, Name, URL             string
	Reachable, Leader, Learning bool
	Revision, Lag               int64
	Bytes                       int64 // of its database
	Full                        bool  // it is as large as it may be: changes are refused
	Error                       string
}
