// Package dns answers the name lookups of containers.
//
// Every sandbox has a listener of its own on 127.0.0.11, so who asks is known
// by the socket that the question came in on, and nobody can ask in another's
// name. records.go is what is known, lookup.go answers a question from it,
// server.go reads and writes packets, forward.go asks the name servers outside.
//
// What is promised: a question is answered from one version of the records.
// The name of a container has both kinds of addresses or is answered "no data",
// so that a question for the other kind never leaves. A name of a single label
// never leaves either, and from a container that is on internal networks only,
// nothing does. A TTL is at most 5 seconds.
package dns
