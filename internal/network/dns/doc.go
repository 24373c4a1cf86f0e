// Package dns answers the name lookups of containers.
//
// Every sandbox has a listener of its own on 127.0.0.11, so who asks is known
// by the socket that the question came in on, and nobody can ask in another's
// name. docs/dns.md says how it behaves.
//
//	udp.go, tcp.go   packets in and out, by batches and by connections
//	wire.go          question and frame of a message; hostile input ends here
//	records.go       what is known: one immutable value, replaced by a change
//	lookup.go        what is ours, what may leave, what never does
//	reply.go         answers from the records
//	listener.go      one client: records, cache, or servers outside
//	forward.go       one question for all who ask it, and old answers in need
//	race.go          several servers, as upstream.go plans and remembers them
//	exchange.go      one question to one server
//	entry.go         an answer that is kept, and cache.go where
//
// What is promised: a question is answered from one version of the records.
// The name of a container has both kinds of addresses or is answered "no data",
// so that a question for the other kind never leaves. A name of a single label
// never leaves either, and from a container that is on internal networks only,
// nothing does. A TTL of ours is at most 5 seconds. What is ours is answered
// without waiting for anything that others do.
package dns
