// Package tc puts guards on our bridges and on the links of containers: small
// eBPF programs at the hooks of traffic control (TCX, before Linux 6.6 clsact),
// which do not depend on the firewall.
//
// The one at the bridge's egress lets to the containers what the host itself
// sends, and what carries the mark that chain "passed" of our nftables table
// sets. When somebody flushes the rules nothing is marked any more, so until they
// are repaired nothing is forwarded to a container: fail closed. The other one,
// at the ingress of an internal network's bridge, stops what would be routed on.
//
// The one at the host's end of a container's link drops neighbour advertisements
// for addresses that the sender does not send from: what the bridge table's rules
// cannot compare.
//
// Traps. "What the host itself sends" is a packet that came in by no interface
// (skb_iif is 0). What others forward past netfilter's forward hook (IPVS,
// flowtables of others, XDP) carries no mark and is stopped. Programs go with
// their link, and live as long as a link has them. Nobody is told when one is taken
// off a list of TCX: that is seen when we look the next time.
package tc
