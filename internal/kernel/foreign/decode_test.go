package foreign

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/ruleset"
)

var far = netip.MustParseAddr("192.0.2.1")

// FuzzRule: whatever a rule looks like, it is read, said and run.
func FuzzRule(f *testing.F) {
	expr := func(name string, data func(*nlmsg.Attrs)) []byte {
		a := nlmsg.Header()
		a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nlmsg.Attrs) {
			a.Nest(unix.NFTA_LIST_ELEM, func(a *nlmsg.Attrs) { a.Str(unix.NFTA_EXPR_NAME, name).Nest(unix.NFTA_EXPR_DATA, data) })
		})
		return a.Data()
	}
	for _, name := range []string{"meta", "payload", "cmp", "range", "bitwise", "byteorder", "lookup", "immediate", "ct", "fib", "match", "target", "limit", "nat"} {
		f.Add(expr(name, func(a *nlmsg.Attrs) { a.B32(1, 1).B32(2, 1).B32(3, 1).B32(4, 4).Put(5, make([]byte, 64)) }))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id := ruleset.SetID{Family: "ip", Table: "t"}
		r := &reader{out: &ruleset.Ruleset{Sets: map[ruleset.SetID]ruleset.Set{id: {Elements: []ruleset.Element{{Key: []byte{1}, Last: []byte{2}}}}}}}
		d := decoder{reader: r, table: tableID{"ip", "t"}, loaded: map[ruleset.Reg]string{}}
		for _, e := range nlmsg.Each(nlmsg.Find(b, unix.NFTA_RULE_EXPRESSIONS)) {
			if nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME)) == "lookup" {
				return // would ask the kernel
			}
		}
		rule, err := d.rule(b)
		if err != nil {
			t.Fatal(err)
		}
		r.out.Chains = []ruleset.Chain{{Family: "ip", Table: "t", Name: "c", Hook: ruleset.Forward, Rules: []ruleset.Rule{rule}}}
		r.out.Pass(ruleset.Forward, ruleset.Packet{In: "a", Out: "b", Src: far, Dst: far, Proto: "tcp", DstPort: 80})
	})
}
