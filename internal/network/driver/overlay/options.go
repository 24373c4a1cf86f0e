package overlay

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/network"
	"isle/internal/network/bridged"
)

const (
	optVNI       = "com.docker.network.driver.overlay.vxlanid_list"
	optMTU       = network.OptMTU
	optEncrypted = "encrypted"
	optPort      = "isle.overlay.port"
	optDirect    = "isle.direct"
)

// What is not chosen. An encrypted network has a port of its own, because that is for
// what was decrypted only; nobody sees it on the wire.
const (
	defaultPort = 4789 // RFC 7348
	sealedPort  = 4790
	firstVNI    = 4096 // Docker's
	lastVNI     = 1<<24 - 1
)

// options are a network's, read.
type options struct {
	VNIs      []uint32 // that it may have, the one that it has; none: any
	MTU       int      // 0: what fits
	Encrypted bool
	Port      uint16
	Direct    bool
}

// vni is the number that the network has; 0: it has none yet.
func (o options) vni() uint32 {
	if len(o.VNIs) != 1 {
		return 0
	}
	return o.VNIs[0]
}

// parse reads the options of a network. Those that are not ours are left alone.
func parse(opts map[string]string) (o options, err error) {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := o.set(k, opts[k]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
		}
	}
	switch {
	case o.Direct && o.Encrypted:
		return o, fmt.Errorf("option %s: what must be encrypted needs a tunnel (hint: leave out one of %s and %s): %w", optDirect, optDirect, optEncrypted, errdefs.ErrInvalidArgument)
	case o.Port == 0 && o.Encrypted:
		o.Port = sealedPort
	case o.Port == 0:
		o.Port = defaultPort
	}
	return o, nil
}

func (o *options) set(k, v string) (err error) {
	switch k {
	case optVNI:
		o.VNIs, err = parseVNIs(v)
	case optMTU:
		if v != "" && v != "0" {
			o.MTU, err = bridged.Number(v, 68, 65535)
		}
	case optEncrypted:
		o.Encrypted, err = bridged.Bool(v)
	case optDirect:
		o.Direct, err = bridged.Bool(v)
	case optPort:
		var n int
		n, err = bridged.Number(v, 1, 65535)
		o.Port = uint16(n)
	case network.OptHostBinding:
		if v != "" {
			_, err = netip.ParseAddr(v)
		}
	case network.OptIfacePrefix:
		if v != "" {
			err = network.CheckInterface(v + "0")
		}
	}
	return err
}

// parseVNIs reads numbers with commas between them.
func parseVNIs(v string) (out []uint32, err error) {
	for s := range strings.SplitSeq(v, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		n, err := bridged.Number(s, 1, lastVNI)
		if err != nil {
			return nil, err
		}
		out = append(out, uint32(n))
	}
	return out, nil
}
