// Package ipam hands out subnets and the addresses in them.
//
// What is taken is in the records, ipam/<pool>/addr/<address> and
// ipam/<pool>/owner/<owner>, written in the caller's transaction, so that an
// address and its endpoint are committed together or not at all. An Allocator
// keeps in memory only what finds the next free one quickly: a bitmap and a
// cursor for each pool. It is loaded from the records once; after that the
// caller tells it, after each commit, what was taken and what became free.
//
// Traps: a freed address is not handed out again before the cursor has been
// round the pool, because neighbours and clients still remember who had it.
// Reserve changes nothing in memory, so a transaction may be run twice or
// thrown away.
package ipam
