package directory

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/store/etcd"
)

// Bounds of what a record may say: others wrote it.
const (
	maxRecord = 256 << 10
	maxAddrs  = 16
	maxNames  = 256
	maxName   = 255
	maxVNI    = 1<<24 - 1
)

var (
	idPattern   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	errTooLarge = errors.New("it is too large")
	errUnknown  = errors.New("nobody knows what it is")
)

// decode reads what is at a key into v, which check finds good.
func decode[T any](e etcd.Event, v *T, check func(T) error, id func(T) string) error {
	if len(e.Value) > maxRecord {
		return errTooLarge
	}
	if err := json.Unmarshal(e.Value, v); err != nil {
		return err
	}
	if key := e.Key[strings.LastIndexByte(e.Key, '/')+1:]; id(*v) != key {
		return fmt.Errorf("it is of %q, not of %q", id(*v), key)
	}
	return check(*v)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

func checkHost(h fabric.Host) error {
	switch {
	case !idPattern.MatchString(h.ID):
		return invalid("host id %q", h.ID)
	case h.Name == "" || len(h.Name) > maxName:
		return invalid("host %s: name %q", h.ID, h.Name)
	case !unicast(h.Addr):
		return invalid("host %s: address %s", h.Name, h.Addr)
	case !wireGuardKey(h.Key) || !wireGuardKey(h.OldKey):
		return invalid("host %s: its key is no WireGuard public key", h.Name)
	}
	return nil
}

func wireGuardKey(s string) bool {
	b, err := base64.StdEncoding.DecodeString(s)
	return s == "" || err == nil && len(b) == 32
}

func checkNetwork(n fabric.Network) error {
	switch {
	case !idPattern.MatchString(n.ID):
		return invalid("network id %q", n.ID)
	case n.Name == "" || len(n.Name) > maxName || strings.Contains(n.Name, "/"):
		return invalid("network %s: name %q", n.ID, n.Name)
	case n.VNI > maxVNI || n.VNI == 0:
		return invalid("network %s: VNI %d is not in 1 to %d", n.Name, n.VNI, maxVNI)
	}
	if _, err := subnetsOf(n); err != nil {
		return invalid("network %s: record: %w", n.Name, err)
	}
	return nil
}

// subnetsOf are the subnets that a network's record names. This is all that is read of
// it here.
func subnetsOf(n fabric.Network) (all []netip.Prefix, err error) {
	var r struct {
		Pools []struct{ Subnet netip.Prefix }
	}
	if len(n.Record) == 0 {
		return nil, nil
	}
	err = json.Unmarshal(n.Record, &r)
	for _, p := range r.Pools {
		if p.Subnet.IsValid() {
			all = append(all, p.Subnet.Masked())
		}
	}
	return all, err
}

func checkEndpoint(e fabric.Endpoint) error {
	switch {
	case !idPattern.MatchString(e.ID) || !idPattern.MatchString(e.Network) || !idPattern.MatchString(e.Host):
		return invalid("endpoint %q on network %q of host %q: an id is none", e.ID, e.Network, e.Host)
	case len(e.Container) > maxName:
		return invalid("endpoint %s: the name of its container is too long", e.ID)
	case len(e.Addrs) == 0 || len(e.Addrs) > maxAddrs:
		return invalid("endpoint %s: %d addresses", e.ID, len(e.Addrs))
	case e.MAC[0]&1 != 0: // none at all: it follows from the address
		return invalid("endpoint %s: MAC address %x", e.ID, e.MAC)
	}
	for _, a := range e.Addrs {
		if !a.IsValid() || !unicast(a.Addr()) {
			return invalid("endpoint %s: address %s", e.ID, a)
		}
	}
	return checkNames(e)
}

func checkNames(e fabric.Endpoint) error {
	if len(e.Names) > maxNames {
		return invalid("endpoint %s: %d names", e.ID, len(e.Names))
	}
	for _, n := range e.Names {
		if n == "" || len(n) > maxName {
			return invalid("endpoint %s: name %q", e.ID, n)
		}
	}
	return nil
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
