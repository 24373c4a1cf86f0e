// Package ruleset holds packet filters of others as values and says what they do
// with a packet, by which rule.
//
// It is the machine of nftables in small: registers, loads, comparisons, sets,
// verdicts. It knows nothing of sockets: package kernel/foreign fills it, packages
// network/exposure and network/doctor ask it.
//
//	out := rules.Pass(ruleset.Forward, ruleset.Packet{In: "eth0", Out: "isle0", …})
//	if out.Drop { fmt.Println("stopped by", out.By) }
//
// Traps. A condition that it does not understand (an ipset, the owner of a socket)
// is neither true nor false: the rule is passed over, and when its verdict would
// have changed the end the outcome is Unsure. A packet has no mark, whatever rules
// before set. A rate that a rule limits is taken as not yet reached. What is in our
// own table must be left out by whoever fills it.
package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Hook is where in its way a packet is looked at.
type Hook string

// Hooks.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Ruleset is all tables of others.
type Ruleset struct {
	Chains []Chain
	Sets   map[SetID]Set
	Links  map[string]uint32 // numbers of the interfaces
}

// Chain is one chain. Hook is "" where it is only jumped to.
type Chain struct {
	Family   string // ip, ip6, inet
	Table    string
	Name     string
	Kind     string // filter, nat, route
	Hook     Hook
	Priority int32
	Drop     bool // the policy
	Legacy   bool // of iptables-legacy: a rule's Handle is its number
	Rules    []Rule
}

// Rule is its text, for people, and its steps.
type Rule struct {
	Handle uint64
	Text   string
	Steps  []Step
}

// SetID names a set.
type SetID struct{ Family, Table, Name string }

// Set is what a set or a map holds. Fields are the lengths of what its keys are
// made of, each filled up to four bytes.
type Set struct {
	Fields   []int
	Elements []Element
}

// Element is one key, or all from Key to Last.
type Element struct {
	Key, Last []byte
	Data      []byte
	Verdict   *Verdict
}

// Packet is one that begins a connection. What is zero has no such thing.
type Packet struct {
	In, Out          string // interfaces
	Src, Dst         netip.Addr
	Proto            string // tcp, udp, sctp
	SrcPort, DstPort uint16
	DNAT             netip.AddrPort // where it was sent before a port was forwarded
	Local            bool           // Dst is an address of the host
}

// Place is a rule, or with an empty Text and Handle a chain's policy.
type Place struct {
	Family, Table, Chain string
	Handle               uint64
	Text                 string
	Legacy               bool
}

func (p Place) String() string {
	chain := fmt.Sprintf("chain %s of table %s %s", p.Chain, p.Family, p.Table)
	if p.Legacy {
		chain += " of iptables-legacy"
	}
	if p.Handle == 0 {
		return "the policy of " + chain + " (drop)"
	}
	return fmt.Sprintf("rule %d in %s (%s)", p.Handle, chain, p.Text)
}

// Outcome is what becomes of a packet at a hook.
type Outcome struct {
	Drop     bool
	Redirect bool  // sent elsewhere by a rule of NAT
	Unsure   bool  // a rule that is not understood may decide otherwise
	By       Place // what dropped or redirected it, or may have
}

// Pass sends a packet through all chains at a hook, in the order of the kernel.
func (r *Ruleset) Pass(hook Hook, p Packet) Outcome {
	var out Outcome
	if hook == Prerouting || hook == Input {
		p.Out = "" // not known there
	}
	for _, c := range r.base(hook, p) {
		run := run{rules: r, packet: p, family: c.Family, table: c.Table, legacy: c.Legacy}
		got := run.base(c)
		if got.Drop || got.Redirect && !got.Unsure {
			return got
		}
		if got.Unsure {
			out = got
		}
	}
	return out
}

func (r *Ruleset) base(hook Hook, p Packet) (out []*Chain) {
	family := "ip"
	if p.Dst.Is6() {
		family = "ip6"
	}
	for i := range r.Chains {
		if c := &r.Chains[i]; c.Hook == hook && (c.Family == family || c.Family == "inet") {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *Chain) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

func (r *Ruleset) chain(family, table, name string, legacy bool) *Chain {
	for i := range r.Chains {
		if c := &r.Chains[i]; c.Family == family && c.Table == table && c.Name == name && c.Legacy == legacy {
			return c
		}
	}
	return nil
}
