package nft

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Where eBPF cannot redirect 127.0.0.11:53, a table of ours inside the
// container's namespace does: the answers' source is put right by conntrack.

const dnsNote = "isle resolver on port "

// SetDNS makes the table in ns, or replaces it.
func SetDNS(ns *os.File, name string, port uint16) error {
	return withTable(ns, name, func(t *Table) error {
		c := chain{inet, "output", "nat", output, dstnat, nil}
		msgs := append(t.removal(), t.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE,
			t.attrs(inet, unix.NFTA_TABLE_NAME).Put(nftaTableUserdata, udata(fmt.Sprint(dnsNote, port)))), t.chainMessage(c))
		for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			msgs = append(msgs, t.ruleMessage(c, rule{"", resolverRule(p, port)}))
		}
		return t.all(msgs)
	})
}

func resolverRule(l4 byte, to uint16) []expr.Any {
	return join(
		family(unix.NFPROTO_IPV4), daddr4.is([]byte{127, 0, 0, 11}), l4proto.is([]byte{l4}), dport.is([]byte{0, 53}),
		[]expr.Any{
			&expr.Immediate{Register: reg, Data: []byte{127, 0, 0, 11}},
			&expr.Immediate{Register: reg + 1, Data: binary.BigEndian.AppendUint16(nil, to)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg, RegProtoMin: reg + 1},
		})
}

// DelDNS removes the table from ns.
func DelDNS(ns *os.File, name string) error {
	return withTable(ns, name, func(t *Table) error { return t.all(t.removal()) })
}

// DNS is the port that the table in ns leads to; 0: there is none.
func DNS(ns *os.File, name string) (port uint16, err error) {
	err = withTable(ns, name, func(t *Table) error {
		_, note, err := t.table(inet)
		if err != nil || note == "" {
			return err
		}
		if _, err := fmt.Sscanf(note, dnsNote+"%d", &port); err != nil {
			return fmt.Errorf("nftables table %s: note %q is not ours", name, note)
		}
		return nil
	})
	return port, err
}

// removal deletes the table whether it is there or not.
func (t *Table) removal() []message {
	return []message{
		t.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t.attrs(inet, unix.NFTA_TABLE_NAME)),
		t.message(unix.NFT_MSG_DELTABLE, 0, t.attrs(inet, unix.NFTA_TABLE_NAME)),
	}
}

func (t *Table) all(msgs []message) error {
	errs, err := t.batch(0, msgs)
	for i := range msgs { // the first is the cause of most others
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", describe(msgs[i]), errs[i])
		}
	}
	return err
}

func withTable(ns *os.File, name string, fn func(*Table) error) error {
	t, err := Open(ns, name)
	if err != nil {
		return err
	}
	defer t.Close()
	return fn(t)
}
