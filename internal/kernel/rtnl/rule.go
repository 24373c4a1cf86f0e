package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/netspec"
)

// Of struct fib_rule_hdr and its attributes (linux/fib_rules.h).
const (
	ruleHeader  = 12
	ruleToTable = 1
	fraSrc      = 2
	fraPriority = 6
	fraTable    = 15
	fraProtocol = 21
)

func ruleMessage(typ, flags uint16, r netspec.Rule) nlmsg.Message {
	h := make([]byte, ruleHeader)
	h[0], h[2], h[7] = family(r.From.Addr()), uint8(r.From.Bits()), ruleToTable
	a := nlmsg.Header(h...).Put(fraSrc, r.From.Addr().AsSlice()).
		U32(fraPriority, uint32(r.Priority)).U32(fraTable, uint32(r.Table)).U8(fraProtocol, Proto)
	return nlmsg.Message{Type: typ, Flags: flags, Data: a.Data()}
}

// AddRule adds a rule; one that is there is EEXIST.
func AddRule(r netspec.Rule) nlmsg.Message {
	return ruleMessage(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r)
}

// DelRule removes a rule.
func DelRule(r netspec.Rule) nlmsg.Message { return ruleMessage(unix.RTM_DELRULE, 0, r) }

// Rules reads our rules of the namespace, both families.
func (c *Conn) Rules() ([]netspec.Rule, error) {
	bs, err := c.Dump(nlmsg.Message{Type: unix.RTM_GETRULE, Data: make([]byte, ruleHeader)})
	var out []netspec.Rule
	for _, b := range bs {
		if r, ok := parseRule(b); ok {
			out = append(out, r)
		}
	}
	return out, err
}

func parseRule(b []byte) (r netspec.Rule, ours bool) {
	if len(b) < ruleHeader || b[7] != ruleToTable {
		return r, false
	}
	r.Table = int(b[4])
	for t, d := range nlmsg.Each(b[ruleHeader:]) {
		switch t {
		case fraSrc:
			a, _ := netip.AddrFromSlice(d)
			r.From = netip.PrefixFrom(a, int(b[2]))
		case fraPriority:
			r.Priority = int(nlmsg.U32(d))
		case fraTable:
			r.Table = int(nlmsg.U32(d))
		case fraProtocol:
			ours = len(d) > 0 && d[0] == Proto
		}
	}
	return r, ours && r.From.IsValid()
}
