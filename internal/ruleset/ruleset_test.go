package ruleset_test

import (
	"net/netip"
	"strings"
	"testing"

	"isle/internal/ruleset"
)

func ends(c ruleset.Code, chain string) ruleset.Step {
	return ruleset.End{Verdict: ruleset.Verdict{Code: c, Chain: chain}}
}

func rule(handle uint64, steps ...ruleset.Step) ruleset.Rule {
	return ruleset.Rule{Handle: handle, Text: "some text", Steps: steps}
}

func base(drop bool, rules ...ruleset.Rule) ruleset.Chain {
	return ruleset.Chain{Family: "ip", Table: "filter", Name: "FORWARD", Kind: "filter", Hook: ruleset.Forward, Drop: drop, Rules: rules}
}

func called(name string, rules ...ruleset.Rule) ruleset.Chain {
	return ruleset.Chain{Family: "ip", Table: "filter", Name: name, Rules: rules}
}

var packet = ruleset.Packet{
	In: "eth0", Out: "isle0", Src: netip.MustParseAddr("192.0.2.2"), Dst: netip.MustParseAddr("10.1.0.2"), Proto: "tcp", SrcPort: 4000, DstPort: 80,
	DNAT: netip.MustParseAddrPort("192.0.2.1:8080"),
}

// field compares a field of the packet with what it should be.
func field(f ruleset.Field, data ...byte) []ruleset.Step {
	return []ruleset.Step{ruleset.Load{Field: f, Dst: 1}, ruleset.Compare{Src: 1, Op: ruleset.Eq, Data: data}}
}

// TestFields: what a rule sees of a packet.
func TestFields(t *testing.T) {
	for what, steps := range map[string][]ruleset.Step{
		"source":            field(ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}, 192, 0, 2, 2),
		"destination":       field(ruleset.Field{Of: ruleset.NetworkHeader, Offset: 16, Len: 4}, 10, 1, 0, 2),
		"protocol":          field(ruleset.Field{Of: ruleset.L4Proto}, 6),
		"in its header":     field(ruleset.Field{Of: ruleset.NetworkHeader, Offset: 9, Len: 1}, 6),
		"port":              field(ruleset.Field{Of: ruleset.TransportHeader, Offset: 2, Len: 2}, 0, 80),
		"family":            field(ruleset.Field{Of: ruleset.NFProto}, 2),
		"port dialed":       field(ruleset.Field{Of: ruleset.CTOriginalPort}, 0x1f, 0x90),
		"address dialed":    field(ruleset.Field{Of: ruleset.CTOriginalDst}, 192, 0, 2, 1),
		"beginning of name": field(ruleset.Field{Of: ruleset.InName}, 'e', 't', 'h'),
		"number of link":    field(ruleset.Field{Of: ruleset.InIndex}, 7, 0, 0, 0),
		"SYN":               field(ruleset.Field{Of: ruleset.TransportHeader, Offset: 13, Len: 1}, 2),
	} {
		rules := &ruleset.Ruleset{Chains: []ruleset.Chain{base(false, rule(1, append(steps, ends(ruleset.Drop, ""))...))}, Links: map[string]uint32{"eth0": 7}}
		if out := rules.Pass(ruleset.Forward, packet); !out.Drop || out.Unsure {
			t.Errorf("%s: %+v", what, out)
		}
	}
}

func TestPass(t *testing.T) {
	maybe := ruleset.Perhaps{}
	for _, tt := range []struct {
		what   string
		chains []ruleset.Chain
		want   string
	}{
		{"no chains", nil, "passes"},
		{"policy", []ruleset.Chain{base(true)}, "dropped by the policy of chain FORWARD of table ip filter (drop)"},
		{"accepted before the policy", []ruleset.Chain{base(true, rule(3, ends(ruleset.Accept, "")))}, "passes"},
		{"in another chain", []ruleset.Chain{base(false, rule(3, ends(ruleset.Jump, "x"))), called("x", rule(4, ends(ruleset.Drop, "")))}, "dropped by rule 4 in chain x of table ip filter (some text)"},
		{"back from another chain", []ruleset.Chain{base(true, rule(3, ends(ruleset.Jump, "x")), rule(5, ends(ruleset.Accept, ""))), called("x", rule(4, ends(ruleset.Return, "")))}, "passes"},
		{"not back after goto", []ruleset.Chain{base(true, rule(3, ends(ruleset.Goto, "x")), rule(5, ends(ruleset.Accept, ""))), called("x")}, "dropped by the policy"},
		{"a chain that is not there", []ruleset.Chain{base(false, rule(3, ends(ruleset.Jump, "y")))}, "passes"},
		{"a circle", []ruleset.Chain{base(false, rule(3, ends(ruleset.Jump, "x"))), called("x", rule(4, ends(ruleset.Jump, "x")))}, "passes"},
		{"perhaps dropped", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Drop, "")))}, "unsure about rule 3"},
		{"perhaps let through", []ruleset.Chain{base(true, rule(3, maybe, ends(ruleset.Accept, "")))}, "unsure about the policy"},
		{"perhaps asked elsewhere", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Jump, "x"))), called("x", rule(4, ends(ruleset.Drop, "")))}, "unsure about rule 4"},
		{"perhaps let through, and let through", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Accept, "")))}, "passes"},
		{"perhaps back to what drops", []ruleset.Chain{base(true, rule(3, ends(ruleset.Jump, "x"))), called("x", rule(4, maybe, ends(ruleset.Return, "")), rule(5, ends(ruleset.Accept, "")))}, "unsure about rule 4"},
		{"perhaps back to what passes", []ruleset.Chain{base(false, rule(3, ends(ruleset.Jump, "x"))), called("x", rule(4, maybe, ends(ruleset.Return, "")), rule(5, ends(ruleset.Drop, "")))}, "unsure about rule 5"},
		{"perhaps back, and back", []ruleset.Chain{base(true, rule(3, ends(ruleset.Jump, "x"))), called("x", rule(4, maybe, ends(ruleset.Return, "")))}, "dropped by the policy"},
		{"perhaps to the policy", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Return, "")), rule(4, ends(ruleset.Drop, "")))}, "unsure about rule 4"},
		{"perhaps to the policy, which drops", []ruleset.Chain{base(true, rule(3, maybe, ends(ruleset.Return, "")), rule(4, ends(ruleset.Accept, "")))}, "unsure about rule 3"},
		{"perhaps to the policy, past what drops as well", []ruleset.Chain{base(true, rule(3, maybe, ends(ruleset.Return, "")), rule(4, ends(ruleset.Drop, "")))}, "dropped by rule 4"},
		{"perhaps not back from another chain", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Goto, "x")), rule(4, ends(ruleset.Drop, ""))), called("x")}, "unsure about rule 4"},
		{"perhaps sent elsewhere", []ruleset.Chain{base(false, rule(3, maybe, ends(ruleset.Redirected, "")))}, "unsure about rule 3"},
		{"a port taken", []ruleset.Chain{base(false, rule(3, ends(ruleset.Redirected, "")))}, "sent elsewhere by rule 3"},
	} {
		rules := &ruleset.Ruleset{Chains: tt.chains}
		if got := words(rules.Pass(ruleset.Forward, packet)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

// TestNoInterface: where a packet has no interface yet, conditions see one without a
// name and with the number 0.
func TestNoInterface(t *testing.T) {
	for what, steps := range map[string][]ruleset.Step{
		"name":   {ruleset.Load{Field: ruleset.Field{Of: ruleset.OutName}, Dst: 1}, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte("eth0\x00")}},
		"number": {ruleset.Load{Field: ruleset.Field{Of: ruleset.OutIndex}, Dst: 1}, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte{7, 0, 0, 0}}},
		"isle0":  {ruleset.Load{Field: ruleset.Field{Of: ruleset.OutName}, Dst: 1}, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte("isle0\x00")}},
	} {
		c := base(false, rule(1, append(steps, ends(ruleset.Drop, ""))...))
		c.Hook = ruleset.Prerouting
		rules := &ruleset.Ruleset{Chains: []ruleset.Chain{c}, Links: map[string]uint32{"eth0": 7}}
		if out := rules.Pass(ruleset.Prerouting, packet); !out.Drop {
			t.Errorf("%s: %+v, the kernel drops", what, out)
		}
	}
}

func words(o ruleset.Outcome) string {
	switch {
	case o.Drop:
		return "dropped by " + o.By.String()
	case o.Redirect:
		return "sent elsewhere by " + o.By.String()
	case o.Unsure:
		return "unsure about " + o.By.String()
	}
	return "passes"
}

// TestConcatenation: of a key of several fields each is compared by itself.
func TestConcatenation(t *testing.T) {
	id := ruleset.SetID{Family: "ip", Table: "filter", Name: "s"}
	rules := &ruleset.Ruleset{
		Sets: map[ruleset.SetID]ruleset.Set{id: {Fields: []int{4, 2}, Elements: []ruleset.Element{
			{Key: []byte{192, 0, 2, 0, 0, 90, 0, 0}, Last: []byte{192, 0, 2, 255, 0, 99, 0, 0}},
		}}},
		Chains: []ruleset.Chain{base(false, rule(1,
			ruleset.Load{Field: ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}, Dst: 8},
			ruleset.Load{Field: ruleset.Field{Of: ruleset.TransportHeader, Offset: 2, Len: 2}, Dst: 9},
			ruleset.Lookup{Src: 8, Set: "s"}, ends(ruleset.Drop, "")))},
	}
	for port, dropped := range map[uint16]bool{80: false, 90: true, 99: true, 100: false} {
		p := packet
		p.DstPort = port
		if out := rules.Pass(ruleset.Forward, p); out.Drop != dropped {
			t.Errorf("port %d: %+v", port, out)
		}
	}
}

func BenchmarkPass(b *testing.B) {
	var rules []ruleset.Rule
	for range 1000 {
		rules = append(rules, rule(1, append(field(ruleset.Field{Of: ruleset.TransportHeader, Offset: 2, Len: 2}, 0, 81), ends(ruleset.Drop, ""))...))
	}
	r := &ruleset.Ruleset{Chains: []ruleset.Chain{base(false, rules...)}}
	for b.Loop() {
		r.Pass(ruleset.Forward, packet)
	}
}
