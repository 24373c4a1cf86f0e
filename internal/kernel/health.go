package kernel

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"

	others "isle/internal/kernel/foreign"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/sysctl"
	"isle/internal/ruleset"
)

// Health is what of the host's settings keeps traffic from passing.
type Health struct {
	Forward4, Forward6 bool     // packets are passed on
	Strict             []string // interfaces with a strict rp_filter
	BridgeFilter       bool     // packets within bridges go through iptables
	Flows, MostFlows   int      // of conntrack; 0: not known
}

// Health reads the settings, for the given interfaces.
func (k *Kernel) Health(ctx context.Context, links []string) (h Health, err error) {
	if err := ctx.Err(); err != nil {
		return h, err
	}
	err = netns.Visit(k.host, func() error { h, err = health(links); return err })
	return h, err
}

func health(links []string) (h Health, err error) {
	number := func(name string) int {
		v, rerr := sysctl.Read(name)
		if errors.Is(rerr, os.ErrNotExist) {
			return 0 // the kernel, or the interface, has no such thing
		}
		n, perr := strconv.Atoi(v)
		err = errors.Join(err, rerr)
		if rerr == nil {
			err = errors.Join(err, perr)
		}
		return n
	}
	h.Forward4, h.Forward6 = number("ipv4/ip_forward") != 0, number("ipv6/conf/all/forwarding") != 0
	h.BridgeFilter = number("bridge/bridge-nf-call-iptables") != 0
	h.Flows, h.MostFlows = number("netfilter/nf_conntrack_count"), number("netfilter/nf_conntrack_max")
	all := number("ipv4/conf/all/rp_filter")
	for _, l := range links { // the kernel takes the greater of the two
		if max(all, number("ipv4/conf/"+l+"/rp_filter")) == 1 {
			h.Strict = append(h.Strict, l)
		}
	}
	slices.Sort(h.Strict)
	return h, err
}

// Rules are the packet filters of others.
func (k *Kernel) Rules(ctx context.Context) (*ruleset.Ruleset, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return others.Read(k.host, k.cfg.Table)
}
