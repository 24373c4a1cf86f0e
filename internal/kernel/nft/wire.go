package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/nlmsg"
)

// Numbers of linux/netfilter/nf_tables.h that x/sys/unix lacks.
const (
	nftaTableUserdata = 6
	nftaSetElemKeyEnd = 10
	nftaSetUserdata   = 13
	setDescConcat     = 2
	setConcat         = 0x80
	batchGenID        = 1
	subsystem         = unix.NFNL_SUBSYS_NFTABLES << 8
)

// attrs begins a message that names the table of a family.
func (t *Table) attrs(family uint8, typ uint16) *nlmsg.Attrs {
	return nlmsg.Header(family, 0, 0, 0).Str(typ, t.Name)
}

func (t *Table) message(typ, flags uint16, a *nlmsg.Attrs) nlmsg.Message {
	return nlmsg.Message{Type: subsystem | typ, Flags: flags, Data: a.Data()}
}

// batch sends msgs as one transaction and returns the errors by message. With a
// generation other than 0 it fails with ERESTART when somebody has changed
// anything since.
func (t *Table) batch(gen uint32, msgs []nlmsg.Message) (map[int]error, error) {
	mark := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	begin := nlmsg.Header(mark...)
	if gen != 0 {
		begin.B32(batchGenID, gen)
	}
	all := make([]nlmsg.Message, 0, len(msgs)+2)
	all = append(all, nlmsg.Message{Type: unix.NFNL_MSG_BATCH_BEGIN, Data: begin.Data()})
	all = append(all, msgs...)
	all[len(msgs)].Flags |= unix.NLM_F_ACK
	all = append(all, nlmsg.Message{Type: unix.NFNL_MSG_BATCH_END, Data: mark})
	first, err := t.conn.Send(all)
	if err != nil {
		return nil, err
	}
	return t.answers(first, len(msgs))
}

// answers reads until the last message is acknowledged, which the kernel does
// when it has committed or given up. Errors come before that.
func (t *Table) answers(first uint32, n int) (map[int]error, error) {
	errs := map[int]error{}
	for {
		as, err := t.conn.Receive()
		if err != nil {
			return nil, err
		}
		for _, a := range as {
			i := int(int32(a.Seq - first))
			switch {
			case a.Type != unix.NLMSG_ERROR || i < 0 || i > n:
			case i == 0:
				return nil, a.Err // the whole batch: ERESTART, no permission
			default:
				if a.Err != nil {
					errs[i-1] = a.Err
				}
				if i == n {
					return errs, nil
				}
			}
		}
	}
}

func (t *Table) generation() (uint32, error) {
	b, err := t.conn.Get(nlmsg.Message{Type: subsystem | unix.NFT_MSG_GETGEN, Data: []byte{unix.AF_UNSPEC, 0, 0, 0}})
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	return nlmsg.B32(nlmsg.Find(b[4:], unix.NFTA_GEN_ID)), nil
}

func udata(comment string) []byte {
	if comment == "" {
		return nil
	}
	return userdata.AppendString(nil, 0, comment)
}

func comment(b []byte) string {
	s, _ := userdata.GetString(b, 0)
	return s
}

// note is what people see in a listing.
const note = "kept by isled: what others change here is put right"

// fixed makes the tables with their sets, chains and rules; with those of tunnels, or
// without.
func (t *Table) fixed(guarded bool) (msgs []nlmsg.Message) {
	for _, f := range t.families() {
		msgs = append(msgs, t.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			t.attrs(f, unix.NFTA_TABLE_NAME).Put(nftaTableUserdata, udata(note))))
	}
	for i, s := range sets() {
		if t.has(s.table) {
			msgs = append(msgs, t.setMessage(uint32(i+1), s))
		}
	}
	all := slices.DeleteFunc(chains(t.marks()), func(c chain) bool { return !t.has(c.table) })
	if guarded {
		all = append(all, t.tunnelChains()...)
	}
	return append(msgs, t.chainMessages(all)...)
}

func (t *Table) chainMessages(all []chain) (msgs []nlmsg.Message) {
	for _, c := range all {
		msgs = append(msgs, t.chainMessage(c))
	}
	for _, c := range all {
		for _, r := range c.rules {
			msgs = append(msgs, t.ruleMessage(c, r))
		}
	}
	return msgs
}

// chainRemovals delete chains with their rules.
func (t *Table) chainRemovals(all []chain) (msgs []nlmsg.Message) {
	for _, c := range all {
		msgs = append(msgs, t.message(unix.NFT_MSG_DELCHAIN, 0, t.attrs(c.table, unix.NFTA_CHAIN_TABLE).Str(unix.NFTA_CHAIN_NAME, c.name)))
	}
	return msgs
}

func (t *Table) setMessage(id uint32, s set) nlmsg.Message {
	key := nftables.MustConcatSetType(s.key...)
	var flags uint32
	if s.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.interval && len(s.key) > 1 {
		flags |= setConcat
	}
	if s.data != nil {
		flags |= unix.NFT_SET_MAP
	}
	a := t.attrs(s.table, unix.NFTA_SET_TABLE).Str(unix.NFTA_SET_NAME, s.name).B32(unix.NFTA_SET_FLAGS, flags).
		B32(unix.NFTA_SET_KEY_TYPE, key.GetNFTMagic()).B32(unix.NFTA_SET_KEY_LEN, width(s.key)).B32(unix.NFTA_SET_ID, id)
	if s.data != nil {
		data := nftables.MustConcatSetType(s.data...)
		a.B32(unix.NFTA_SET_DATA_TYPE, data.GetNFTMagic()).B32(unix.NFTA_SET_DATA_LEN, width(s.data))
	}
	if flags&setConcat != 0 {
		a.Nest(unix.NFTA_SET_DESC, func(a *nlmsg.Attrs) { a.Nest(setDescConcat, func(a *nlmsg.Attrs) { fields(a, s.key) }) })
	}
	a.Put(nftaSetUserdata, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, byteOrder(s.key)))
	return t.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, a)
}

// byteOrder is for nft, which prints addresses backwards without it, and the
// names of interfaces not at all: 1 is the host's, 2 the network's.
func byteOrder(key []nftables.SetDatatype) uint32 {
	if len(key) == 1 && key[0].Name == dev.Name {
		return 1
	}
	return 2
}

func fields(a *nlmsg.Attrs, key []nftables.SetDatatype) {
	for _, k := range key {
		a.Nest(unix.NFTA_LIST_ELEM, func(a *nlmsg.Attrs) { a.B32(1, k.Bytes) })
	}
}

func (t *Table) chainMessage(c chain) nlmsg.Message {
	a := t.attrs(c.table, unix.NFTA_CHAIN_TABLE).Str(unix.NFTA_CHAIN_NAME, c.name)
	if c.kind != "" {
		a.Nest(unix.NFTA_CHAIN_HOOK, func(a *nlmsg.Attrs) {
			a.B32(unix.NFTA_HOOK_HOOKNUM, c.hook).B32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		})
		a.B32(unix.NFTA_CHAIN_POLICY, 1).Str(unix.NFTA_CHAIN_TYPE, c.kind)
	}
	return t.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, a)
}

func (t *Table) ruleMessage(c chain, r rule) nlmsg.Message {
	a := t.attrs(c.table, unix.NFTA_RULE_TABLE).Str(unix.NFTA_RULE_CHAIN, c.name)
	a.Nest(unix.NFTA_RULE_EXPRESSIONS, func(a *nlmsg.Attrs) {
		for _, e := range r.exprs {
			b, err := expr.Marshal(c.table, e)
			if err != nil {
				panic(fmt.Sprintf("nft: rule %q cannot be encoded: %v", r.comment, err)) // rules are constants
			}
			a.Put(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
		}
	})
	if u := udata(r.comment); u != nil {
		a.Put(unix.NFTA_RULE_USERDATA, u)
	}
	return t.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, a)
}

// describe names what a message is about, for errors.
func describe(m nlmsg.Message) string {
	name := func(typ uint16) string { return nlmsg.Str(nlmsg.Find(m.Data[4:], typ)) }
	family := map[byte]string{inet: "inet", bridge: "bridge"}[m.Data[0]]
	switch m.Type &^ subsystem {
	case unix.NFT_MSG_NEWSET:
		return family + " set " + name(unix.NFTA_SET_NAME)
	case unix.NFT_MSG_NEWCHAIN:
		return family + " chain " + name(unix.NFTA_CHAIN_NAME)
	case unix.NFT_MSG_NEWRULE:
		return fmt.Sprintf("%s rule %q of chain %s", family, comment(nlmsg.Find(m.Data[4:], unix.NFTA_RULE_USERDATA)), name(unix.NFTA_RULE_CHAIN))
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		return family + " element of set " + name(unix.NFTA_SET_ELEM_LIST_SET)
	}
	return family + " table"
}

func (t *Table) opMessage(o op) nlmsg.Message {
	if o.chain != nil {
		return *o.chain
	}
	return t.elementMessage(o)
}

func (t *Table) elementMessage(o op) nlmsg.Message {
	a := t.attrs(tableOf[o.e.set], unix.NFTA_SET_ELEM_LIST_TABLE).Str(unix.NFTA_SET_ELEM_LIST_SET, o.e.set)
	a.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *nlmsg.Attrs) {
		a.Nest(unix.NFTA_LIST_ELEM, func(a *nlmsg.Attrs) { elementAttrs(a, o) })
	})
	if o.del {
		return t.message(unix.NFT_MSG_DELSETELEM, 0, a)
	}
	return t.message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, a)
}

func elementAttrs(a *nlmsg.Attrs, o op) {
	value := func(typ uint16, v string) {
		a.Nest(typ, func(a *nlmsg.Attrs) { a.Put(unix.NFTA_DATA_VALUE, []byte(v)) })
	}
	if o.e.closes {
		a.B32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	value(unix.NFTA_SET_ELEM_KEY, o.e.key)
	if o.e.end != "" {
		value(nftaSetElemKeyEnd, o.e.end)
	}
	if o.e.data != "" {
		value(unix.NFTA_SET_ELEM_DATA, o.e.data)
	}
	if u := udata(o.e.comment); u != nil && !o.del {
		a.Put(unix.NFTA_SET_ELEM_USERDATA, u)
	}
}

// table reports whether the table of a family is there, and its comment.
func (t *Table) table(family uint8) (exists bool, note string, err error) {
	b, err := t.conn.Get(t.message(unix.NFT_MSG_GETTABLE, 0, t.attrs(family, unix.NFTA_TABLE_NAME)))
	if errors.Is(err, unix.ENOENT) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("read nftables table: %w", err)
	}
	return true, comment(nlmsg.Find(b[4:], nftaTableUserdata)), nil
}

// elements reads what is in our sets. Sets that are not there are empty.
func (t *Table) elements() (elements, error) {
	es := elements{}
	for _, s := range sets() {
		if !t.has(s.table) {
			continue
		}
		a := t.attrs(s.table, unix.NFTA_SET_ELEM_LIST_TABLE).Str(unix.NFTA_SET_ELEM_LIST_SET, s.name)
		bs, err := t.conn.Dump(t.message(unix.NFT_MSG_GETSETELEM, 0, a))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("read nftables set %s: %w", s.name, err)
		}
		for _, b := range bs {
			for _, d := range nlmsg.Each(nlmsg.Find(b[4:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				if e := parseElement(s.name, d); !e.closes || slices.ContainsFunc(e.bytes(), nonZero) {
					es[e] = struct{}{}
				}
			}
		}
	}
	return es, nil
}

func nonZero(b byte) bool { return b != 0 }

func (e element) bytes() []byte { return []byte(e.key) }

func parseElement(set string, b []byte) element {
	value := func(typ uint16) string { return string(nlmsg.Find(b, typ, unix.NFTA_DATA_VALUE)) }
	e := element{
		set: set, key: value(unix.NFTA_SET_ELEM_KEY), end: value(nftaSetElemKeyEnd), data: value(unix.NFTA_SET_ELEM_DATA),
		comment: comment(nlmsg.Find(b, unix.NFTA_SET_ELEM_USERDATA)),
	}
	if f := nlmsg.Find(b, unix.NFTA_SET_ELEM_FLAGS); len(f) == 4 {
		e.closes = binary.BigEndian.Uint32(f)&unix.NFT_SET_ELEM_INTERVAL_END != 0
	}
	return e
}
