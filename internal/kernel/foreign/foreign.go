// Package foreign reads the packet filters of others: all tables of nftables but
// ours, those of iptables-nft among them, and those of iptables-legacy, which nft
// does not show. It writes nothing.
//
//	rules, err := foreign.Read(host, "isle")
//
// Traps. What is read at different moments may not fit together: it is read again
// when somebody changed anything meanwhile. An expression that is not known here
// becomes a step that is neither true nor false, never one that is left out.
package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/ruleset"
)

const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

var families = map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// Read reads the namespace ns (nil: the calling thread's) without the inet table
// ours.
func Read(ns *os.File, ours string) (*ruleset.Ruleset, error) {
	r := &reader{ours: ours}
	open := func() (err error) {
		if r.conn, err = nlmsg.Open(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		r.legacy, err = legacy()
		return err
	}
	err := error(nil)
	if ns == nil {
		err = open()
	} else {
		err = netns.Visit(ns, open)
	}
	if r.conn != nil {
		defer r.conn.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("read packet filters: %w", err)
	}
	links, err := links(ns)
	if err != nil {
		return nil, err
	}
	if err := r.atOneTime(); err != nil {
		return nil, fmt.Errorf("read packet filters: %w", err)
	}
	r.out.Chains, r.out.Links = append(r.out.Chains, r.legacy...), links
	return r.out, nil
}

func links(ns *os.File) (map[string]uint32, error) {
	c, err := rtnl.Open(ns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Links(false)
	out := map[string]uint32{}
	for _, l := range all {
		out[l.Name] = uint32(l.Index)
	}
	return out, err
}

type reader struct {
	ours   string
	conn   *nlmsg.Conn
	legacy []ruleset.Chain
	out    *ruleset.Ruleset
}

type tableID struct{ family, name string }

const tries = 10

func (r *reader) atOneTime() error {
	for range tries {
		before, err := r.generation()
		if err != nil {
			return err
		}
		err = r.read()
		if errors.Is(err, unix.ENOENT) { // something was deleted meanwhile
			continue
		}
		if err != nil {
			return err
		}
		if after, err := r.generation(); err != nil || after == before {
			return err
		}
	}
	return nlmsg.ErrInterrupted
}

func (r *reader) generation() (uint32, error) {
	b, err := r.conn.Get(nlmsg.Message{Type: subsystem | unix.NFT_MSG_GETGEN, Data: []byte{unix.AF_UNSPEC, 0, 0, 0}})
	if err != nil {
		return 0, err
	}
	return nlmsg.B32(nlmsg.Find(b[4:], unix.NFTA_GEN_ID)), nil
}

func (r *reader) read() error {
	r.out = &ruleset.Ruleset{Sets: map[ruleset.SetID]ruleset.Set{}}
	sleeping, err := r.sleeping()
	if err != nil {
		return err
	}
	sets, err := r.sets()
	if err != nil {
		return err
	}
	if err := r.chains(sleeping); err != nil {
		return err
	}
	return r.rules(sets)
}

func (r *reader) dump(typ uint16, a *nlmsg.Attrs) ([][]byte, error) {
	return r.conn.Dump(nlmsg.Message{Type: subsystem | typ, Data: a.Data()})
}

func all() *nlmsg.Attrs { return nlmsg.Header(unix.NFPROTO_UNSPEC, 0, 0, 0) }

// of is the table that a message is about; false: nobody asks for it.
func (r *reader) of(b []byte, attr uint16) (tableID, bool) {
	if len(b) < 4 {
		return tableID{}, false
	}
	family, ok := families[b[0]]
	t := tableID{family, nlmsg.Str(nlmsg.Find(b[4:], attr))}
	return t, ok && t != tableID{"inet", r.ours}
}

// sleeping are the tables that are switched off.
func (r *reader) sleeping() (map[tableID]bool, error) {
	bs, err := r.dump(unix.NFT_MSG_GETTABLE, all())
	out := map[tableID]bool{}
	for _, b := range bs {
		if t, ok := r.of(b, unix.NFTA_TABLE_NAME); ok {
			out[t] = nlmsg.B32(nlmsg.Find(b[4:], unix.NFTA_TABLE_FLAGS))&unix.NFT_TABLE_F_DORMANT != 0
		}
	}
	return out, err
}

var hooks = []ruleset.Hook{ruleset.Prerouting, ruleset.Input, ruleset.Forward, ruleset.Output, ruleset.Postrouting}

func (r *reader) chains(sleeping map[tableID]bool) error {
	bs, err := r.dump(unix.NFT_MSG_GETCHAIN, all())
	for _, b := range bs {
		t, ok := r.of(b, unix.NFTA_CHAIN_TABLE)
		if !ok {
			continue
		}
		c := ruleset.Chain{
			Family: t.family, Table: t.name, Name: nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_CHAIN_NAME)),
			Kind: nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_CHAIN_TYPE)),
		}
		if h := nlmsg.Find(b[4:], unix.NFTA_CHAIN_HOOK); h != nil && !sleeping[t] {
			if n := nlmsg.B32(nlmsg.Find(h, unix.NFTA_HOOK_HOOKNUM)); int(n) < len(hooks) {
				c.Hook = hooks[n]
			}
			c.Priority = int32(nlmsg.B32(nlmsg.Find(h, unix.NFTA_HOOK_PRIORITY)))
			policy := nlmsg.Find(b[4:], unix.NFTA_CHAIN_POLICY)
			c.Drop = len(policy) == 4 && nlmsg.B32(policy) == 0
		}
		r.out.Chains = append(r.out.Chains, c)
	}
	return err
}

func (r *reader) rules(sets map[ruleset.SetID]bool) error {
	bs, err := r.dump(unix.NFT_MSG_GETRULE, all())
	at := map[[3]string]int{}
	for i, c := range r.out.Chains {
		at[[3]string{c.Family, c.Table, c.Name}] = i
	}
	for _, b := range bs {
		t, ok := r.of(b, unix.NFTA_RULE_TABLE)
		i, there := at[[3]string{t.family, t.name, nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_RULE_CHAIN))}]
		if !ok || !there {
			continue
		}
		d := decoder{reader: r, table: t, named: sets, loaded: map[ruleset.Reg]string{}}
		rule, err := d.rule(b[4:])
		if err != nil {
			return err
		}
		r.out.Chains[i].Rules = append(r.out.Chains[i].Rules, rule)
	}
	return err
}

// sets are the names of all sets; what is in them is read when a rule asks.
func (r *reader) sets() (map[ruleset.SetID]bool, error) {
	bs, err := r.dump(unix.NFT_MSG_GETSET, all())
	out := map[ruleset.SetID]bool{}
	for _, b := range bs {
		t, ok := r.of(b, unix.NFTA_SET_TABLE)
		if !ok {
			continue
		}
		flags := nlmsg.B32(nlmsg.Find(b[4:], unix.NFTA_SET_FLAGS))
		id := ruleset.SetID{Family: t.family, Table: t.name, Name: nlmsg.Str(nlmsg.Find(b[4:], unix.NFTA_SET_NAME))}
		out[id] = flags&unix.NFT_SET_ANONYMOUS == 0
		r.out.Sets[id] = ruleset.Set{Fields: setFields(b[4:])}
	}
	return out, err
}

// Attributes of a set that x/sys/unix lacks.
const (
	setDescConcat = 2
	setFieldLen   = 1
	setElemKeyEnd = 10
)

func setFields(b []byte) (out []int) {
	for _, f := range nlmsg.Each(nlmsg.Find(b, unix.NFTA_SET_DESC, setDescConcat)) {
		out = append(out, int(nlmsg.B32(nlmsg.Find(f, setFieldLen))))
	}
	return out
}

// fill reads what is in a set, once.
func (r *reader) fill(id ruleset.SetID) error {
	s := r.out.Sets[id]
	if s.Elements != nil {
		return nil
	}
	family := uint8(unix.NFPROTO_INET)
	for n, name := range families {
		if name == id.Family {
			family = n
		}
	}
	a := nlmsg.Header(family, 0, 0, 0).Str(unix.NFTA_SET_ELEM_LIST_TABLE, id.Table).Str(unix.NFTA_SET_ELEM_LIST_SET, id.Name)
	bs, err := r.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return err
	}
	s.Elements = elements(bs)
	r.out.Sets[id] = s
	return nil
}

// elements turns the marks of where a row begins and ends into rows.
func elements(bs [][]byte) []ruleset.Element {
	type mark struct {
		ruleset.Element
		closes bool
	}
	var marks []mark
	rows := false
	for _, b := range bs {
		for _, d := range nlmsg.Each(nlmsg.Find(b[4:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			m := mark{closes: nlmsg.B32(nlmsg.Find(d, unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0}
			m.Key, m.Last = nlmsg.Find(d, unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE), nlmsg.Find(d, setElemKeyEnd, unix.NFTA_DATA_VALUE)
			m.Data = nlmsg.Find(d, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE)
			m.Verdict = verdictOf(nlmsg.Find(d, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT))
			rows = rows || m.closes
			marks = append(marks, m)
		}
	}
	if rows {
		slices.SortStableFunc(marks, func(a, b mark) int { return bytes.Compare(a.Key, b.Key) })
	}
	out := make([]ruleset.Element, 0, len(marks))
	for i, m := range marks {
		switch {
		case m.closes:
			continue
		case rows:
			m.Last = bytes.Repeat([]byte{0xff}, len(m.Key))
			for _, next := range marks[i+1:] {
				if !bytes.Equal(next.Key, m.Key) {
					m.Last = before(next.Key)
					break
				}
			}
		}
		out = append(out, m.Element)
	}
	slices.SortStableFunc(out, func(a, b ruleset.Element) int { return len(b.Key) - len(a.Key) }) // what catches all the rest comes last
	return out
}

// before is the number before b.
func before(b []byte) []byte {
	out := bytes.Clone(b)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
	return out
}

func verdictOf(b []byte) *ruleset.Verdict {
	code := nlmsg.Find(b, unix.NFTA_VERDICT_CODE)
	if len(code) < 4 {
		return nil
	}
	v := ruleset.Verdict{Chain: nlmsg.Str(nlmsg.Find(b, unix.NFTA_VERDICT_CHAIN))}
	switch int32(binary.BigEndian.Uint32(code)) {
	case 0:
		v.Code = ruleset.Drop
	case 1, 3: // accept; to a program, which nobody can foresee, and which passes by default
		v.Code = ruleset.Accept
	case unix.NFT_RETURN:
		v.Code = ruleset.Return
	case unix.NFT_JUMP:
		v.Code = ruleset.Jump
	case unix.NFT_GOTO:
		v.Code = ruleset.Goto
	}
	return &v
}
