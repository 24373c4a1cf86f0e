package dhcp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
)

// Config says for whom a lease is, and how to ask for it.
type Config struct {
	// Do runs a function on a thread in the container's namespace. Required.
	// It is called whenever a socket is opened.
	Do func(func() error) error
	// Interface is the interface's name in that namespace. Required.
	Interface string
	// MAC is the interface's. Required.
	MAC netspec.MAC
	// SharedMAC says that others have the same MAC (ipvlan): the client is then
	// told by its id, and answers are asked for by broadcast.
	SharedMAC bool
	// Endpoint tells apart the clients of one machine for ever, as an endpoint's
	// id does. Required with SharedMAC and for IPv6.
	Endpoint string

	Hostname  string // option 12; empty: none
	FQDN      string // option 81, or 39 of DHCPv6: the server is asked to enter it into DNS
	ClientID  []byte // option 61, type and id; empty: of the MAC or the DUID
	DUID      []byte // of DHCPv6; empty: of the MAC
	Vendor    string // option 60; empty: "isle"
	UserClass string // option 77, or 15 of DHCPv6

	// Previous is the lease of an earlier run: its address is asked for again.
	Previous *Lease
	// Limit is how long Acquire waits. Zero: 10 seconds.
	Limit time.Duration
	// Probe is how long a new address is looked for on the LAN before it is
	// used. Zero: a second. Negative: not at all.
	Probe time.Duration
	// Changed hears of everything that happens to the lease after Acquire. Its
	// calls come one after another, and hold up the client.
	Changed func(Change)
	// Log gets what nobody has to act upon. Nil: nobody.
	Log *slog.Logger

	open func(filter) (socket, error) // what tests replace
}

const (
	defaultLimit  = 10 * time.Second
	defaultProbe  = time.Second
	defaultVendor = "isle"
)

// checked is the configuration with its defaults.
func (c Config) checked(v6 bool) (Config, error) {
	switch {
	case c.Interface == "" || c.Do == nil && c.open == nil:
		return c, fmt.Errorf("dhcp: no interface or namespace: %w", errdefs.ErrInvalidArgument)
	case c.MAC == (netspec.MAC{}) || c.MAC[0]&1 != 0:
		return c, fmt.Errorf("dhcp on %s: %v is no MAC of an interface: %w", c.Interface, c.MAC, errdefs.ErrInvalidArgument)
	case c.Endpoint == "" && (v6 || c.SharedMAC):
		return c, fmt.Errorf("dhcp on %s: no endpoint to tell clients apart by: %w", c.Interface, errdefs.ErrInvalidArgument)
	}
	if err := c.fits(); err != nil {
		return c, err
	}
	return c.defaulted(), nil
}

// fits is for what a message has a byte for the length of.
func (c Config) fits() error {
	for what, n := range map[string]int{
		"host name": len(c.Hostname), "domain name": len(c.FQDN), "client id": len(c.ClientID),
		"DUID": len(c.DUID), "vendor class": len(c.Vendor), "user class": len(c.UserClass),
	} {
		if n > 128 {
			return fmt.Errorf("dhcp on %s: %s of %d bytes: 128 are the most: %w", c.Interface, what, n, errdefs.ErrInvalidArgument)
		}
	}
	if len(c.ClientID) == 1 || len(c.DUID) > 0 && len(c.DUID) < 3 {
		return fmt.Errorf("dhcp on %s: an id that is only a type: %w", c.Interface, errdefs.ErrInvalidArgument)
	}
	if c.FQDN != "" && !isDomain(c.FQDN) {
		return fmt.Errorf("dhcp on %s: %q is no domain name: %w", c.Interface, c.FQDN, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (c Config) defaulted() Config {
	if c.Limit <= 0 {
		c.Limit = defaultLimit
	}
	if c.Probe == 0 {
		c.Probe = defaultProbe
	}
	if c.Vendor == "" {
		c.Vendor = defaultVendor
	}
	if c.Changed == nil {
		c.Changed = func(Change) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.open == nil {
		c.open = c.openSocket
	}
	if len(c.DUID) == 0 {
		c.DUID = append([]byte{0, 3, 0, 1}, c.MAC[:]...) // DUID-LL, Ethernet
	}
	if len(c.ClientID) == 0 {
		c.ClientID = c.defaultClientID()
	}
	return c
}

// defaultClientID is of the MAC, which is what administrators reserve addresses
// by; with a shared MAC, of what DHCPv6 has for it (RFC 4361).
func (c Config) defaultClientID() []byte {
	if !c.SharedMAC {
		return append([]byte{1}, c.MAC[:]...)
	}
	iaid := c.iaid()
	return append(append([]byte{255}, iaid[:]...), c.DUID...)
}

// iaid is the endpoint's number among the clients of its DUID.
func (c Config) iaid() (id [4]byte) {
	sum := sha256.Sum256([]byte(c.Endpoint))
	copy(id[:], sum[:])
	return id
}

// linkLocal is the address that the kernel makes of a MAC (RFC 4291, app. A).
func linkLocal(mac netspec.MAC) netip.Addr { return withMAC(netip.MustParsePrefix("fe80::/64"), mac) }

// withMAC is the address in a /64 that belongs to a MAC.
func withMAC(p netip.Prefix, mac netspec.MAC) netip.Addr {
	a := p.Masked().Addr().As16()
	binary.BigEndian.PutUint64(a[8:], uint64(mac[0]^2)<<56|uint64(mac[1])<<48|uint64(mac[2])<<40|
		0xfffe<<24|uint64(mac[3])<<16|uint64(mac[4])<<8|uint64(mac[5]))
	return netip.AddrFrom16(a)
}
