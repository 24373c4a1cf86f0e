package kernel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/tc"
)

// The rule mutation test: each rule, element, redirect and guard is taken away
// or altered in the running kernel, and some question must then be answered
// otherwise. A mutation that survives is a rule that nobody needs, or a promise
// that nobody tests.

// mutation is one change, and what puts it right again.
type mutation struct {
	name     string
	do, undo func() error
}

// firewall is our tables as the kernel tells them, in its own encoding, so that
// what is taken away can be given back exactly.
type firewall struct {
	conn   *nlmsg.Conn
	chains []rawChain
	sets   []rawSet
}

type rawChain struct {
	family uint8
	name   string
	rules  []rawRule
}

type rawRule struct{ exprs, userdata []byte }

type rawSet struct {
	family    uint8
	name      string
	intervals bool // of single fields: an interval is two elements
	elements  []rawElement
}

type rawElement struct{ key, end, data, userdata, flags []byte }

func readFirewall(p *policy) (f *firewall) {
	f = &firewall{}
	p.host.Do(func() (err error) { f.conn, err = nlmsg.Open(unix.NETLINK_NETFILTER); return err })
	p.t.Cleanup(func() { f.conn.Close() })
	for _, family := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_BRIDGE} {
		if err := errors.Join(f.readRules(family), f.readSets(family)); err != nil {
			p.t.Fatal(err)
		}
	}
	return f
}

func table(family uint8, attr uint16) *nlmsg.Attrs {
	return nlmsg.Header(family, 0, 0, 0).Str(attr, "isle")
}

func nftMessage(typ, flags uint16, a *nlmsg.Attrs) nlmsg.Message {
	return nlmsg.Message{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | typ, Flags: flags, Data: a.Data()}
}

func (f *firewall) readRules(family uint8) error {
	bs, err := f.conn.Dump(nftMessage(unix.NFT_MSG_GETRULE, 0, table(family, unix.NFTA_RULE_TABLE)))
	for _, b := range bs {
		if nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_RULE_TABLE)) != "isle" {
			continue
		}
		name := nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_RULE_CHAIN))
		if n := len(f.chains); n == 0 || f.chains[n-1].name != name || f.chains[n-1].family != family {
			f.chains = append(f.chains, rawChain{family: family, name: name})
		}
		c := &f.chains[len(f.chains)-1]
		c.rules = append(c.rules, rawRule{again(nlmsg.Find(b[4:], unix.NFTA_RULE_EXPRESSIONS)), nlmsg.Find(b[4:], unix.NFTA_RULE_USERDATA)})
	}
	return err
}

// again is what the kernel tells of a rule, as it wants to be told: of an option
// that is written it tells flags, and does not take them.
func again(exprs []byte) []byte {
	out := nlmsg.Header()
	for _, e := range nlmsg.Each(exprs) {
		data := nlmsg.Find(e, unix.NFTA_EXPR_DATA)
		if nlmsg.Find(data, unix.NFTA_EXTHDR_SREG) == nil || nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME)) != "exthdr" {
			out.Put(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
			continue
		}
		out.Nest(unix.NFTA_LIST_ELEM, func(out *nlmsg.Attrs) {
			out.Str(unix.NFTA_EXPR_NAME, "exthdr").Nest(unix.NFTA_EXPR_DATA, func(out *nlmsg.Attrs) {
				for typ, v := range nlmsg.Each(data) {
					if typ != unix.NFTA_EXTHDR_FLAGS {
						out.Put(typ, v)
					}
				}
			})
		})
	}
	return out.Data()
}

// Numbers that x/sys/unix lacks.
const (
	setElemKeyEnd, setConcat   = 10, 0x80
	verdictDrop, verdictAccept = 0, 1
)

func (f *firewall) readSets(family uint8) error {
	bs, err := f.conn.Dump(nftMessage(unix.NFT_MSG_GETSET, 0, table(family, unix.NFTA_SET_TABLE)))
	for _, b := range bs {
		if nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_SET_TABLE)) != "isle" {
			continue
		}
		flags := nlmsg.B32(nlmsg.Find(b[4:], unix.NFTA_SET_FLAGS))
		s := rawSet{family: family, name: nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_SET_NAME)), intervals: flags&unix.NFT_SET_INTERVAL != 0 && flags&setConcat == 0}
		if err := f.readElements(&s); err != nil {
			return err
		}
		f.sets = append(f.sets, s)
	}
	return err
}

func (f *firewall) readElements(s *rawSet) error {
	bs, err := f.conn.Dump(nftMessage(unix.NFT_MSG_GETSETELEM, 0, table(s.family, unix.NFTA_SET_ELEM_LIST_TABLE).Str(unix.NFTA_SET_ELEM_LIST_SET, s.name)))
	for _, b := range bs {
		for _, e := range nlmsg.Each(nlmsg.Find(b[4:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			s.elements = append(s.elements, rawElement{
				key: nlmsg.Find(e, unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE), end: nlmsg.Find(e, setElemKeyEnd, unix.NFTA_DATA_VALUE),
				data: nlmsg.Find(e, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE), userdata: nlmsg.Find(e, unix.NFTA_SET_ELEM_USERDATA),
				flags: nlmsg.Find(e, unix.NFTA_SET_ELEM_FLAGS)})
		}
	}
	slices.SortFunc(s.elements, func(a, b rawElement) int {
		return cmp.Or(bytes.Compare(a.key, b.key), bytes.Compare(b.flags, a.flags)) // what closes an interval goes first
	})
	return err
}

// commit sends a batch; all of it happens, or the first error is returned.
func (f *firewall) commit(msgs ...nlmsg.Message) error {
	mark := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	msgs[len(msgs)-1].Flags |= unix.NLM_F_ACK
	all := append([]nlmsg.Message{{Type: unix.NFNL_MSG_BATCH_BEGIN, Data: mark}}, msgs...)
	first, err := f.conn.Send(append(all, nlmsg.Message{Type: unix.NFNL_MSG_BATCH_END, Data: mark}))
	for err == nil {
		var as []nlmsg.Answer
		as, err = f.conn.Receive()
		for _, a := range as {
			if a.Seq-first > uint32(len(msgs)) || a.Err == nil && a.Seq-first < uint32(len(msgs)) {
				continue
			}
			return a.Err
		}
	}
	return err
}

// fill makes a chain hold rules.
func (f *firewall) fill(c rawChain, rules []rawRule) error {
	msgs := []nlmsg.Message{nftMessage(unix.NFT_MSG_DELRULE, 0, table(c.family, unix.NFTA_RULE_TABLE).Str(unix.NFTA_RULE_CHAIN, c.name))}
	for _, r := range rules {
		a := table(c.family, unix.NFTA_RULE_TABLE).Str(unix.NFTA_RULE_CHAIN, c.name).Put(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, r.exprs)
		if r.userdata != nil {
			a.Put(unix.NFTA_RULE_USERDATA, r.userdata)
		}
		msgs = append(msgs, nftMessage(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, a))
	}
	return f.commit(msgs...)
}

// ruleMutations deletes each rule, and turns each verdict into its opposite.
func (f *firewall) ruleMutations() (out []mutation) {
	for _, c := range f.chains {
		for i, r := range c.rules {
			name := fmt.Sprintf("rule %s %d (%s; %s)", c.name, i+1, ruleComment(r), strings.Join(f.setsIn(r), " "))
			undo := func() error { return f.fill(c, c.rules) }
			out = append(out, mutation{name + " deleted", func() error { return f.fill(c, slices.Delete(slices.Clone(c.rules), i, i+1)) }, undo})
			if v, ok := opposite(r); ok {
				rules := slices.Clone(c.rules)
				rules[i].exprs = v
				out = append(out, mutation{name + " with the opposite verdict", func() error { return f.fill(c, rules) }, undo})
			}
			for _, w := range conditions(r) {
				rules := slices.Clone(c.rules)
				rules[i].exprs = w.exprs
				out = append(out, mutation{name + " without " + w.what, func() error { return f.fill(c, rules) }, undo})
			}
		}
	}
	return out
}

// without is a rule that lacks something.
type without struct {
	what  string
	exprs []byte
}

// conditions are r without one of its conditions each. The protocol families are
// no conditions: nft wants them said.
func conditions(r rawRule) (out []without) {
	var all [][]byte
	for _, e := range nlmsg.Each(r.exprs) {
		all = append(all, e)
	}
	first := 0
	for i, e := range all {
		name := nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME))
		if name != "cmp" && (name != "lookup" || nlmsg.Find(e, unix.NFTA_EXPR_DATA, unix.NFTA_LOOKUP_DREG) != nil) {
			continue
		}
		if !family(all[first]) {
			w, a := without{what: fmt.Sprintf("condition %d:", len(out)+1)}, nlmsg.Header()
			for j, e := range all {
				if first <= j && j <= i {
					w.what += " " + nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME))
				} else {
					a.Put(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
				}
			}
			w.exprs = a.Data()
			out = append(out, w)
		}
		first = i + 1
	}
	return out
}

// family reports whether an expression loads the family or protocol of a packet.
func family(expr []byte) bool {
	key := nlmsg.Find(expr, unix.NFTA_EXPR_DATA, unix.NFTA_META_KEY)
	return nlmsg.Str(nlmsg.Find(expr, unix.NFTA_EXPR_NAME)) == "meta" && (nlmsg.B32(key) == unix.NFT_META_NFPROTO || nlmsg.B32(key) == unix.NFT_META_PROTOCOL)
}

func ruleComment(r rawRule) string {
	s, _ := userdata.GetString(r.userdata, 0)
	return s
}

// setsIn are the sets that a rule looks into.
func (f *firewall) setsIn(r rawRule) (out []string) {
	for _, e := range nlmsg.Each(r.exprs) {
		if nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_NAME)) == "lookup" {
			out = append(out, nlmsg.Str(nlmsg.Find(e, unix.NFTA_EXPR_DATA, unix.NFTA_LOOKUP_SET)))
		}
	}
	return out
}

// opposite is a rule that drops what r lets go on, or accepts what r drops.
func opposite(r rawRule) (exprs []byte, ok bool) {
	a := nlmsg.Header()
	for _, e := range nlmsg.Each(r.exprs) {
		v := nlmsg.Find(e, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CODE)
		if v == nil {
			a.Put(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
			continue
		}
		code := uint32(verdictDrop)
		if nlmsg.B32(v) == verdictDrop {
			code = verdictAccept
		}
		ok = true
		a.Nest(unix.NFTA_LIST_ELEM, func(a *nlmsg.Attrs) {
			a.Str(unix.NFTA_EXPR_NAME, "immediate").Nest(unix.NFTA_EXPR_DATA, func(a *nlmsg.Attrs) {
				a.B32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT).Nest(unix.NFTA_IMMEDIATE_DATA, func(a *nlmsg.Attrs) {
					a.Nest(unix.NFTA_DATA_VERDICT, func(a *nlmsg.Attrs) { a.B32(unix.NFTA_VERDICT_CODE, code) })
				})
			})
		})
	}
	return a.Data(), ok
}

func (s rawSet) message(typ, flags uint16, es []rawElement) nlmsg.Message {
	a := table(s.family, unix.NFTA_SET_ELEM_LIST_TABLE).Str(unix.NFTA_SET_ELEM_LIST_SET, s.name)
	a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nlmsg.Attrs) {
		for _, e := range es {
			a.Nest(unix.NFTA_LIST_ELEM, func(a *nlmsg.Attrs) { e.put(a, typ == unix.NFT_MSG_NEWSETELEM) })
		}
	})
	return nftMessage(typ, flags, a)
}

func (e rawElement) put(a *nlmsg.Attrs, whole bool) {
	value := func(typ uint16, v []byte) {
		if v != nil {
			a.Nest(typ, func(a *nlmsg.Attrs) { a.Put(unix.NFTA_DATA_VALUE, v) })
		}
	}
	value(unix.NFTA_SET_ELEM_KEY, e.key)
	value(setElemKeyEnd, e.end)
	if e.flags != nil {
		a.Put(unix.NFTA_SET_ELEM_FLAGS, e.flags)
	}
	if whole {
		value(unix.NFTA_SET_ELEM_DATA, e.data)
		if e.userdata != nil {
			a.Put(unix.NFTA_SET_ELEM_USERDATA, e.userdata)
		}
	}
}

func (f *firewall) remove(s rawSet, es []rawElement) error {
	return f.commit(s.message(unix.NFT_MSG_DELSETELEM, 0, es))
}

func (f *firewall) put(s rawSet, es []rawElement) error {
	return f.commit(s.message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, es))
}

// elementMutations deletes each element, and lets each of a map lead elsewhere:
// to the second container of the first network.
func (f *firewall) elementMutations() (out []mutation) {
	for _, s := range f.sets {
		size := 1
		if s.intervals {
			size = 2
		}
		for es := range slices.Chunk(slices.DeleteFunc(slices.Clone(s.elements), open(s)), size) {
			name := fmt.Sprintf("element %s %s", s.name, es[0].text(s.name))
			undo := func() error { return f.put(s, es) }
			out = append(out, mutation{name + " deleted", func() error { return f.remove(s, es) }, undo})
			if es[0].data == nil {
				continue
			}
			other := es[0]
			other.data = elsewhere(other.data, strings.HasSuffix(s.name, "6"))
			swap := func(from, to rawElement) func() error {
				return func() error { return errors.Join(f.remove(s, []rawElement{from}), f.put(s, []rawElement{to})) }
			}
			out = append(out, mutation{name + " to another container", swap(es[0], other), swap(other, es[0])})
		}
	}
	return out
}

// open is the element that the kernel shows before all intervals of a set.
func open(s rawSet) func(rawElement) bool {
	first := true
	return func(e rawElement) bool {
		was := first
		first = false
		return was && s.intervals && nlmsg.B32(e.flags)&unix.NFT_SET_ELEM_INTERVAL_END != 0
	}
}

func elsewhere(data []byte, v6 bool) []byte {
	if len(data) == len(nobodyMAC) {
		return nobodyMAC[:]
	}
	f := 0
	if v6 {
		f = 1
	}
	a := member(natNet, 2).addr(f).AsSlice()
	return append(a, data[len(a):]...)
}

// layouts are the fields of the keys of sets: interface, address, protocol,
// number of a port, MAC address.
var layouts = map[string]string{
	"internal": "i", "leaves": "i", "same": "ii", "nets": "a", "segments": "ai", "entrances": "ai", "open": "a", "direct": "a", "masquerade": "a",
	"ports": "apn", "anyports": "pn", "ifports": "ipn", "ranges": "apn", "anyranges": "pn", "ifranges": "ipn",
	"limited": "apn", "allowed": "apna", "iflimited": "ipn", "ifallowed": "ipna", "openports": "apn", "openranges": "apn", "openfrom": "apna",
	"across": "ai", "shortcuts": "ma",
	"guarded": "i", "macs": "im", "sources": "ima", "prefixes": "ima", "routers": "im", "subnets": "a",
}

// text is an element in words that occur in questions' "touches".
func (e rawElement) text(set string) string {
	family, k, out := 4, e.key, []string{}
	if strings.HasSuffix(set, "6") {
		family = 16
	}
	take := func(n int) []byte { b := k[:n]; k = k[n:]; return b }
	for _, field := range layouts[strings.TrimRight(set, "46")] {
		switch field {
		case 'i':
			out = append(out, nlmsg.Str(take(16)))
		case 'a':
			out = append(out, address(take(family)))
		case 'p':
			out = append(out, map[byte]string{6: "tcp", 17: "udp"}[take(4)[0]])
		case 'n':
			out = append(out, fmt.Sprint(binary.BigEndian.Uint16(take(4))))
		case 'm':
			out = append(out, fmt.Sprintf("%x", take(8)[:6]))
		}
	}
	return strings.Join(out, " ")
}

func address(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return fmt.Sprintf("%x", b)
}

// hunt makes each mutation in turn and asks until an answer is wrong. It returns
// which question found each; "" for those that survive.
func hunt(p *policy, ms []mutation) (killer map[string]string, err error) {
	killer = map[string]string{}
	for _, m := range ms {
		if err := m.do(); err != nil {
			return killer, fmt.Errorf("%s: %w", m.name, err)
		}
		killer[m.name] = p.find(m.name)
		if err := m.undo(); err != nil {
			return killer, fmt.Errorf("undo %s: %w", m.name, err)
		}
	}
	return killer, nil
}

// find returns a question that is answered wrong, with the answer. Those that
// touch what the name says are asked first. Where nobody finds anything, the
// machine may be too busy to answer in time: all are asked again with patience.
func (p *policy) find(name string) string {
	qs := slices.Clone(p.questions)
	slices.SortStableFunc(qs, func(a, b question) int { return score(b, name) - score(a, name) })
	for _, patience := range []time.Duration{quick, thorough} {
		for at, n := 0, 6; at < len(qs); at, n = at+n, 32 {
			for q, got := range wrongAfter(patience, qs[at:min(at+n, len(qs))]) {
				return fmt.Sprintf("%s = %q", q, got)
			}
		}
		if excuse(name) != "" {
			break
		}
	}
	return ""
}

// score is how many words a question and a mutation share.
func score(q question, name string) (n int) {
	for _, w := range strings.Fields(q.touches) {
		if strings.Contains(name, w) {
			n++
		}
	}
	return n
}

// spread hunts in several worlds at once: most of the time is waiting for
// answers that do not come. The kernel's tables of neighbours are one for all
// namespaces: with many more worlds they are full, and answers stay away for it.
func spread(t *testing.T, worlds int, build func(t testing.TB) (*policy, []mutation)) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	killed := map[string]string{}
	hunts := make([]func(), worlds)
	for i := range worlds {
		p, all := build(t)
		if bad := settled(p.questions); len(bad) > 0 {
			t.Fatalf("before any mutation: %v", bad)
		}
		var mine []mutation
		for j := i; j < len(all); j += worlds {
			mine = append(mine, all[j])
		}
		hunts[i] = func() {
			got, err := hunt(p, mine)
			if err != nil {
				t.Error(err)
			}
			if bad := settled(p.questions); len(bad) > 0 {
				t.Errorf("after all was put right: %v", bad)
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(killed, got)
		}
	}
	for _, f := range hunts {
		wg.Go(f)
	}
	wg.Wait()
	report(t, killed)
}

// equivalent are mutations that change nothing, and why.
var equivalent = map[string]string{
	"rule forward 1 (a connection of which both ends were heard; ) deleted":                  "the rule about what came before says it too: this one costs less",
	"(a published port; ) without condition 2":                                               "chain passed asks for the link again",
	"(a network that is open to everybody; direct4) without condition 1":                     "chain passed asks for the link again",
	"(a network that is open to everybody; direct6) without condition 1":                     "chain passed asks for the link again",
	"(within one network; same) without condition":                                           theSet,
	"(nothing enters an internal network; internal) without condition 1":                     theSet,
	"(nothing leaves an internal network; internal) without condition 1":                     theSet,
	"(hairpin: answers must come back through us; segments4) without condition 1":            theSet,
	"(hairpin: answers must come back through us; segments6) without condition 1":            theSet,
	"(to a container of another host; across4) without condition 1: meta cmp":                theSet,
	"(to a container of another host; across6) without condition 1: meta cmp":                theSet,
	"(stays within its network; segments4) without condition 1":                              theSet,
	"(stays within its network; segments6) without condition 1":                              theSet,
	"(seen again where it is routed; leaves) without condition 1":                            theSet,
	"rule source 3 (its own address; sources6) deleted":                                      "chain source_ip6 says it again, later",
	"rule source 4 (its own address; sources6) deleted":                                      "chain source_ip6 says it again, later",
	"how large the others may be; ) without condition 1: meta cmp":                           "the kernel looks for options in TCP only",
	"how large the others may be; ) without condition 2: payload bitwise cmp":                "only a SYN has the option",
	"(a program speaks for a tunnel; seals) without condition 2: meta cmp":                   asksUser,
	"(a program speaks for a tunnel; tunnels peers4) without condition 3: meta cmp":          asksUser,
	"(a program speaks for a tunnel; tunnels peers6) without condition 3: meta cmp":          asksUser,
	"(br_netfilter: hairpin meets the guard before the forward chain; ) without condition 2": "only connections of others, of which both ends are translated, would be marked too, and no guard of ours lets them in",
	"(a tunnel from a host of the cluster; tunnels peers":                                    notTracked,
	"(a tunnel to a host of the cluster; tunnels peers":                                      notTracked,
	"(a tunnel: looked at where it ends; tunnels)":                                           "what it spares lets it pass too, and what is not for this host meets chain forward",
	"(out of a tunnel: held to its address where it was sent; ) deleted":                     "no tunnel is guarded: this one costs less",
	"(out of a tunnel: held to its address where it was sent; ) with the opposite verdict":   "nothing comes out of a tunnel here: TestAcross",
}

const notTracked = "it spares the table of connections, and is no verdict: TestTunnelsUntracked"

const theSet = "the set says it too: comparing costs less, and spares most packets the look into it"

const asksUser = "to read the user is the question: what the kernel sends by itself has none, and the rule ends there"

func excuse(name string) string {
	for what, why := range equivalent {
		if strings.Contains(name, what) {
			return why
		}
	}
	return ""
}

// report prints who killed whom; survivors fail the test.
func report(t *testing.T, killed map[string]string) {
	var b strings.Builder
	survivors, excused := 0, 0
	for _, name := range slices.Sorted(maps.Keys(killed)) {
		killer := killed[name]
		switch why := excuse(name); {
		case killer != "":
		case why != "":
			excused++
			killer = "changes nothing: " + why
		default:
			survivors++
			t.Errorf("survives: %s", name)
		}
		fmt.Fprintf(&b, "%s\n\t%s\n", name, killer)
	}
	t.Logf("%d mutations, %d killed, %d that change nothing\n%s", len(killed), len(killed)-survivors-excused, excused, b.String())
}

// redirectMutations delete each entry of the eBPF maps, and let it lead elsewhere.
func redirectMutations(p *policy) (out []mutation) {
	for _, name := range []string{"isle_lo", "isle_rows", "isle_dns"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(p.cfg.BPFDir, name), nil)
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { m.Close() })
		var k, v []byte
		for it := m.Iterate(); it.Next(&k, &v); {
			key, value := bytes.Clone(k), bytes.Clone(v)
			other := bytes.Clone(value)
			if name == "isle_dns" {
				other[0]++
			} else {
				to := member(natNet, 2).addr(familyOf(netip.AddrFrom16([16]byte(value)).Unmap())).As16()
				copy(other, to[:])
			}
			title := fmt.Sprintf("redirect %s %x", name, key[8:])
			undo := func() error { return m.Put(key, value) }
			out = append(out, mutation{title + " deleted", func() error { return m.Delete(key) }, undo},
				mutation{title + " elsewhere", func() error { return m.Put(key, other) }, undo})
		}
	}
	return out
}

// markMutations put guards on the bridges that ask for another bit. What enters
// an internal network nobody marks, so there it makes no difference.
func markMutations(p *policy) (out []mutation) {
	strange, err := tc.Open(p.host.File, p.table.GuardMark()<<1)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { strange.Close() })
	for n, s := range policyNets {
		if !s.Internal {
			out = append(out, guardMutation(p, n, " asks for another mark", func(i int32) error { return strange.Set(p.rt, i, false) }))
		}
	}
	return out
}

// guardMutations take the guards away. The rules are to be gone, too: they
// would hide it.
func guardMutations(p *policy) (out []mutation) {
	for n, s := range policyNets {
		out = append(out, guardMutation(p, n, " deleted", func(i int32) error { return p.guards.Delete(p.rt, i) }))
		if s.Internal {
			out = append(out, guardMutation(p, n, " lets out", func(i int32) error { return p.guards.Set(p.rt, i, false) }))
		}
	}
	return out
}

func guardMutation(p *policy, n int, what string, do func(index int32) error) mutation {
	link := fmt.Sprintf("isbr%d", n)
	index, err := p.rt.Index(link)
	if err != nil {
		p.t.Fatal(err)
	}
	return mutation{"guard " + link + what, func() error { return do(index) }, func() error { return p.guards.Set(p.rt, index, policyNets[n].Internal) }}
}

// portMutations take the guards of ports away.
func portMutations(p *policy) (out []mutation) {
	for c := range p.held() {
		link := "isv" + c[1:]
		index, err := p.rt.Index(link)
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, mutation{"port guard " + link + " deleted",
			func() error { return p.guards.DeletePort(p.rt, index) }, func() error { return p.guards.SetPort(p.rt, index) }})
	}
	return out
}

// ofLeaf is what matters only where there is a leaf.
func ofLeaf(m mutation) bool {
	return strings.Contains(m.name, "; leaves)") || strings.Contains(m.name, "isleaf")
}

// TestMutation : rules and elements without guards, which would hide that a
// rule is missing; redirects and guards by themselves.
func TestMutation(t *testing.T) {
	t.Run("rules and elements", func(t *testing.T) {
		t.Parallel()
		spread(t, 8, func(t testing.TB) (*policy, []mutation) {
			p := policyVariants[0].make(t)
			f := readFirewall(p)
			return p, slices.DeleteFunc(append(f.ruleMutations(), f.elementMutations()...), ofLeaf)
		})
	})
	t.Run("leaf", func(t *testing.T) {
		t.Parallel()
		spread(t, 1, func(t testing.TB) (*policy, []mutation) {
			p := newLeaf(t)
			f := readFirewall(p)
			ms := append(f.ruleMutations(), f.elementMutations()...)
			return p, slices.DeleteFunc(ms, func(m mutation) bool { return !ofLeaf(m) })
		})
	})
	t.Run("redirects, marks and guards of ports", func(t *testing.T) {
		t.Parallel()
		spread(t, 1, func(t testing.TB) (*policy, []mutation) {
			p := newGuarded(t)
			return p, slices.Concat(redirectMutations(p), markMutations(p), portMutations(p))
		})
	})
	t.Run("guards", func(t *testing.T) {
		t.Parallel()
		spread(t, 1, func(t testing.TB) (*policy, []mutation) {
			p := newFlushed(t)
			return p, guardMutations(p)
		})
	})
}
