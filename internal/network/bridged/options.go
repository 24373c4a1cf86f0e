package bridged

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Options of an endpoint.
const (
	OptSources     = "isle.endpoint.sources" // what it may send from besides its own addresses
	OptEndpointMTU = "isle.endpoint.mtu"
)

// Mode is how a family of a network is joined to the world outside.
type Mode string

// Modes.
const (
	NAT         Mode = "nat"             // published ports of the host; what leaves gets the host's address
	Unprotected Mode = "nat-unprotected" // as NAT, and everybody who routes here reaches all ports of containers
	Routed      Mode = "routed"          // no translation: published ports are open at the containers' own addresses
	Isolated    Mode = "isolated"        // the host has no address there; internal networks only
)

// Options are a network's, as its driver has read them.
type Options struct {
	Link        string // the bridge; required
	ICC         bool   // containers may talk to each other
	Masquerade  bool
	InhibitIPv4 bool // the bridge gets no IPv4 address
	MTU         int  // the user's; 0: that of the way
	Way         int  // the MTU of the way that packets leave by; 0: not known
	Mode4       Mode
	Mode6       Mode
	Trusted     []string // interfaces of the host from which published ports are reached at the containers' addresses
	Guard       bool     // containers send with their own addresses only
	Addressing
}

func (o Options) mode(v4 bool) Mode {
	if v4 {
		return o.Mode4
	}
	return o.Mode6
}

// Known refuses options with a name of ours that a network does not have; ours are
// those that it has. It is asked when a network is made: what was made before stays.
func Known(opts map[string]string, ours ...string) error {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if !strings.HasPrefix(k, "isle.") || slices.Contains(ours, k) {
			continue
		}
		if k == OptSources || k == OptEndpointMTU {
			return fmt.Errorf("option %s is for a container's place on a network (hint: isle run --network name=…,driver-opt=%s=%s): %w", k, k, opts[k], errdefs.ErrInvalidArgument)
		}
		near := slices.MinFunc(ours, func(a, b string) int { return distance(k, a) - distance(k, b) })
		return fmt.Errorf("option %s is not known (hint: did you mean %s?): %w", k, near, errdefs.ErrInvalidArgument)
	}
	return nil
}

// distance is how many letters must be added, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Number reads a number within bounds.
func Number(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("must be a number from %d to %d", least, most)
	}
	return n, nil
}

// Bool reads a truth; nothing is one.
func Bool(s string) (bool, error) {
	if s == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("must be true or false")
	}
	return b, nil
}
