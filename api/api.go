// Package api has what Isle's own endpoints take and give: those below
// /isle/v1, beside the Docker API. Values only; fields are added, never changed.
//
// A port is written as on the command line:
//
//	[ADDRESS:|if=INTERFACE:][HOST]:CONTAINER[/PROTO][;from=PREFIX,…]
package api

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
