package cni

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"

	"isle/internal/network"
)

const (
	prefix    = "isle.cni."
	optConf   = prefix + "conf"
	optGC     = prefix + "gc"
	optLimit  = prefix + "timeout"
	optSubnet = prefix + "subnet"

	optIngressRate  = prefix + "ingress_rate"
	optIngressBurst = prefix + "ingress_burst"
	optEgressRate   = prefix + "egress_rate"
	optEgressBurst  = prefix + "egress_burst"
)

// options are a network's, read.
type options struct {
	Conf    string         // a file, or the name of a configuration
	GC      *bool          // nil: unless the configuration is shared with other runtimes
	Limit   time.Duration  // of a plugin's run; 0: the driver's
	Subnets []netip.Prefix // of which addresses that users ask for are
	Rates   rates          // of endpoints that have none of their own
}

// rates are in bits for each second, bursts in bits, as CNI has them. Ingress is what
// the container gets. 0: no limit.
type rates struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// parse reads the options of a network. Options that are not ours are left alone, as
// Docker does.
func parse(opts map[string]string) (o options, err error) {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := o.set(k, opts[k]); err != nil {
			return o, optionError(k, opts[k], err)
		}
	}
	if o.Conf == "" {
		return o, fmt.Errorf("a cni network needs a configuration (hint: -o %s=FILE, or the name of one in the configured directories): %w", optConf, errdefs.ErrInvalidArgument)
	}
	return o, nil
}

func optionError(key, value string, err error) error {
	return fmt.Errorf("option %s=%s: %w: %w", key, value, err, errdefs.ErrInvalidArgument)
}

func (o *options) set(k, v string) (err error) {
	switch k {
	case optConf:
		o.Conf = v
	case optGC:
		var on bool
		if on, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("must be true or false")
		}
		o.GC = &on
	case optLimit:
		o.Limit, err = limit(v)
	case optSubnet:
		o.Subnets, err = subnets(v)
	case network.OptIfacePrefix:
		err = network.CheckInterface(v + "0")
	default:
		return o.Rates.set(k, v)
	}
	return err
}

func limit(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Second || d > time.Hour {
		return 0, fmt.Errorf("must be a time from 1s to 1h")
	}
	return d, nil
}

func subnets(v string) (out []netip.Prefix, err error) {
	for s := range strings.SplitSeq(v, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("must be subnets with commas between them, such as 10.5.0.0/24")
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// set also refuses options that begin as ours do and are none: they are typing mistakes.
func (r *rates) set(k, v string) (err error) {
	switch k {
	case optIngressRate:
		r.IngressRate, err = bits(v)
	case optIngressBurst:
		r.IngressBurst, err = bits(v)
	case optEgressRate:
		r.EgressRate, err = bits(v)
	case optEgressBurst:
		r.EgressBurst, err = bits(v)
	default:
		if strings.HasPrefix(k, prefix) {
			err = fmt.Errorf("there is no such option")
		}
	}
	return err
}

// most is what plugins can work with: a burst goes into 32 bits, as bytes.
const most = 1 << 40

func bits(v string) (uint64, error) {
	n, err := units.FromHumanSize(v)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("must be a number of bits, such as 10M")
	}
	return uint64(n), nil
}

// of are the rates of an endpoint.
func (r rates) of(ep network.Endpoint) (rates, error) {
	for _, k := range slices.Sorted(maps.Keys(ep.Options)) {
		if err := r.set(k, ep.Options[k]); err != nil {
			return r, optionError(k, ep.Options[k], err)
		}
	}
	r.IngressBurst = burst(r.IngressRate, r.IngressBurst)
	r.EgressBurst = burst(r.EgressRate, r.EgressBurst)
	return r, nil
}

// burst is what plugins ask for with every rate: a tenth of a second, and no less than
// a few packets of the largest size.
func burst(rate, given uint64) uint64 {
	if rate == 0 || given != 0 {
		return given
	}
	return min(max(rate/10, 4*64<<13), 1<<32)
}
