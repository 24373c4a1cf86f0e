// Package netspec describes kernel network state as plain values.
//
// A State says what should be (or is) in the kernel; it holds no handles, no
// file descriptors and no behaviour. Drivers produce States, package reconcile
// compares them, packages under kernel read and write them. Equal inputs give
// equal States: nothing here may depend on the clock, on randomness or on the
// running kernel.
package netspec

import (
	"fmt"
	"maps"
	"strings"
)

// NS names a network namespace of a container. The zero value is the host's.
type NS string

// lent begins the names of namespaces that somebody else made.
const lent = "lent-"

// Lent names a namespace that somebody else made, by the kernel's number of it.
func Lent(cookie uint64) NS { return NS(fmt.Sprintf("%s%x", lent, cookie)) }

// Lent reports whether somebody else made the namespace. We never make such a one, and
// it lives on when we let go: what is ours in it must be taken away.
func (ns NS) Lent() bool { return strings.HasPrefix(string(ns), lent) }

// Object is one kernel object. Implementations are comparable value types, so
// that two versions of an object are compared with ==.
type Object interface {
	// Key identifies the object; two objects with one key are two versions
	// of one thing.
	Key() Key
}

// Key orders and identifies objects. Lower ranks are made first and removed last.
type Key struct {
	Rank Rank
	NS   NS
	ID   string
}

func (k Key) String() string {
	if k.NS == "" {
		return k.Rank.String() + " " + k.ID
	}
	return k.Rank.String() + " " + k.ID + " in " + string(k.NS)
}

// Rank is the creation order of object kinds.
type Rank uint8

// Objects of a lower rank are made before, and removed after, those of a higher.
const (
	RankNamespace Rank = iota + 1
	RankTunnel         // who may speak for a tunnel: before there is one
	RankParent         // what links are made on
	RankLink
	RankGuard
	RankSysctl
	RankForwarding
	RankAddr
	RankRule // before the routes: they are found by it
	RankRoute
	RankNeigh
	RankFilter
)

var rankNames = map[Rank]string{
	RankNamespace: "namespace", RankTunnel: "filter", RankParent: "parent", RankLink: "link", RankGuard: "guard", RankSysctl: "sysctl", RankForwarding: "sysctl", RankAddr: "address",
	RankRule: "rule", RankRoute: "route", RankNeigh: "neighbour", RankFilter: "filter",
}

func (r Rank) String() string { return rankNames[r] }

// State is a set of objects by key.
type State map[Key]Object

// Add puts objects into s. It panics when one key is given two different
// objects: that is a bug in a driver, never a condition to handle.
func (s State) Add(objs ...Object) {
	for _, o := range objs {
		if old, ok := s[o.Key()]; ok && old != o {
			panic(fmt.Sprintf("netspec: %v claimed twice: %+v and %+v", o.Key(), old, o))
		}
		s[o.Key()] = o
	}
}

// Without returns the objects of s that are not in t.
func (s State) Without(t State) State {
	out := State{}
	for k, o := range s {
		if t[k] != o {
			out[k] = o
		}
	}
	return out
}

// Equal reports whether s and t hold the same objects.
func (s State) Equal(t State) bool { return maps.Equal(s, t) }
