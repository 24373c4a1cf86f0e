package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
)

// What the fixed part is to look like, the kernel itself says: it is asked to
// make it in a namespace that nobody has, and to list it there. So nothing that
// somebody may change in ours goes unseen, whatever the kernel makes of what it
// is told.

// listing is the fixed part as the kernel tells it: tables, sets, chains, and
// rules in their order.
type listing []string

// check reports whether the fixed part is there and whole, and notes whether it is with
// the chains of tunnels.
func (t *Table) check() (bool, error) {
	if t.reference.bare == nil {
		r, err := t.makeReference()
		if err != nil {
			return false, fmt.Errorf("make nftables table %s on trial: %w", t.Name, err)
		}
		t.reference = r
	}
	have, err := t.list()
	t.guarded = slices.Equal(have, t.reference.guarded)
	return err == nil && (t.guarded || slices.Equal(have, t.reference.bare)), err
}

// reference is the fixed part as it is to be, without and with the chains of tunnels.
type reference struct{ bare, guarded listing }

func (t *Table) makeReference() (r reference, err error) {
	err = netns.Scratch(func() error {
		conn, err := nlmsg.Open(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer conn.Close()
		trial := &Table{Name: t.Name, Mark: t.Mark, Group: t.Group, Prefix: t.Prefix, NoBridge: t.NoBridge, conn: conn}
		if err := trial.all(trial.fixed(false)); err != nil {
			return err
		}
		if r.bare, err = trial.list(); err != nil {
			return err
		}
		if err := trial.all(trial.chainMessages(trial.tunnelChains())); err != nil {
			return err
		}
		r.guarded, err = trial.list()
		return err
	})
	return r, err
}

func (t *Table) list() (l listing, err error) {
	for _, f := range t.families() {
		for _, kind := range []struct {
			get   uint16
			table uint16
			tell  func([]byte) string
		}{
			{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, tellSet},
			{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, tellChain},
			{unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, tellRule},
		} {
			part, err := t.listKind(f, kind.get, kind.table, kind.tell)
			if err != nil {
				return nil, err
			}
			l = append(l, part...)
		}
	}
	return l, nil
}

// listKind lists objects of one kind. Sets come in the order of their making,
// chains in one that is the kernel's own, and are sorted; rules count by order
// within their chain.
func (t *Table) listKind(family uint8, get, table uint16, tell func([]byte) string) (out []string, err error) {
	bs, err := t.conn.Dump(t.message(get, 0, t.attrs(family, table)))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	for _, b := range bs {
		if nlmsg.Str(nlmsg.Find(b[4:], table)) == t.Name {
			out = append(out, fmt.Sprint(family, " ", tell(b[4:])))
		}
	}
	if get != unix.NFT_MSG_GETRULE {
		slices.Sort(out)
	}
	return out, err
}

func tellSet(b []byte) string {
	return fmt.Sprintf("set %s %x %x %x %x", nlmsg.Str(nlmsg.Find(b, unix.NFTA_SET_NAME)), nlmsg.Find(b, unix.NFTA_SET_FLAGS),
		nlmsg.Find(b, unix.NFTA_SET_KEY_TYPE), nlmsg.Find(b, unix.NFTA_SET_DATA_TYPE), nlmsg.Find(b, unix.NFTA_SET_KEY_LEN))
}

func tellChain(b []byte) string {
	return fmt.Sprintf("chain %s %s %x %x", nlmsg.Str(nlmsg.Find(b, unix.NFTA_CHAIN_NAME)), nlmsg.Str(nlmsg.Find(b, unix.NFTA_CHAIN_TYPE)),
		nlmsg.Find(b, unix.NFTA_CHAIN_HOOK), nlmsg.Find(b, unix.NFTA_CHAIN_POLICY))
}

func tellRule(b []byte) string {
	return fmt.Sprintf("rule %s %x %s", nlmsg.Str(nlmsg.Find(b, unix.NFTA_RULE_CHAIN)), nlmsg.Find(b, unix.NFTA_RULE_EXPRESSIONS),
		comment(nlmsg.Find(b, unix.NFTA_RULE_USERDATA)))
}
