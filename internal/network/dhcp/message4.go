package dhcp

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// Options that the codec has no function for.
const (
	optOverload = v4.GenericOptionCode(52)
	optFQDN     = v4.GenericOptionCode(81)
)

// maxMessage is what fits into a frame, with the headers of IP and UDP.
const maxMessage = 1500

// asked is the parameter request list. 121 stands before 3 (RFC 3442).
var asked = []v4.OptionCode{
	v4.OptionSubnetMask, v4.OptionClasslessStaticRoute, v4.OptionRouter, v4.OptionDomainNameServer,
	v4.OptionHostName, v4.OptionDomainName, v4.OptionInterfaceMTU, v4.OptionBroadcastAddress, v4.OptionNTPServers,
	v4.OptionIPAddressLeaseTime, v4.OptionServerIdentifier, v4.OptionRenewTimeValue, v4.OptionRebindingTimeValue,
	v4.OptionDNSDomainSearchList,
}

// dialogue is one run of messages with the same number.
type dialogue struct {
	id    v4.TransactionID
	start time.Time
}

func newDialogue() dialogue {
	d := dialogue{start: time.Now()}
	be.PutUint32(d.id[:], rand.Uint32())
	return d
}

// message is what all have in common (RFC 2131 4.4.1).
func (c Config) message(d dialogue, kind v4.MessageType, opts ...v4.Option) *v4.DHCPv4 {
	m := &v4.DHCPv4{
		OpCode: v4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: hardware(c.MAC), TransactionID: d.id,
		NumSeconds: uint16(min(time.Since(d.start)/time.Second, 0xffff)), Options: v4.Options{},
	}
	m.UpdateOption(v4.OptMessageType(kind))
	m.UpdateOption(v4.OptClientIdentifier(c.ClientID))
	for _, o := range opts {
		m.UpdateOption(o)
	}
	return m
}

// question is a message that is to be answered, with all that the client says of
// itself and wants to know.
func (c Config) question(d dialogue, kind v4.MessageType, opts ...v4.Option) *v4.DHCPv4 {
	m := c.message(d, kind, opts...)
	if c.SharedMAC {
		m.SetBroadcast()
	}
	m.UpdateOption(v4.OptMaxMessageSize(maxMessage))
	m.UpdateOption(v4.OptParameterRequestList(asked...))
	m.UpdateOption(v4.OptClassIdentifier(c.Vendor))
	if c.UserClass != "" {
		m.UpdateOption(v4.OptRFC3004UserClass([]string{c.UserClass}))
	}
	if c.FQDN != "" {
		m.UpdateOption(v4.OptGeneric(optFQDN, fqdn4(c.FQDN)))
	} else if c.Hostname != "" {
		m.UpdateOption(v4.OptHostName(c.Hostname))
	}
	return m
}

// fqdn4 asks the server to enter the name (S), in the form of DNS (E; RFC 4702).
func fqdn4(name string) []byte {
	l := rfc1035label.Labels{Labels: []string{name}}
	return append([]byte{0b101, 0, 0}, l.ToBytes()...)
}

func ip(a netip.Addr) net.IP { return a.AsSlice() }

func optAddress(a netip.Addr) v4.Option  { return v4.OptRequestedIPAddress(ip(a)) }
func optServerID(a netip.Addr) v4.Option { return v4.OptServerIdentifier(ip(a)) }

// discover asks who has an address, that one for choice.
func (c Config) discover(d dialogue, wish netip.Addr) *v4.DHCPv4 {
	m := c.question(d, v4.MessageTypeDiscover)
	if wish.IsValid() {
		m.UpdateOption(optAddress(wish))
	}
	return m
}

// requestOffer takes an offer; requestAgain asks whether a lease is still good,
// and requestMore to prolong it (RFC 2131, table 5).
func (c Config) requestOffer(d dialogue, a, server netip.Addr) *v4.DHCPv4 {
	return c.question(d, v4.MessageTypeRequest, optAddress(a), optServerID(server))
}

func (c Config) requestAgain(d dialogue, a netip.Addr) *v4.DHCPv4 {
	return c.question(d, v4.MessageTypeRequest, optAddress(a))
}

func (c Config) requestMore(d dialogue, a netip.Addr) *v4.DHCPv4 {
	m := c.question(d, v4.MessageTypeRequest)
	m.ClientIPAddr = ip(a)
	m.SetUnicast() // the address is in use, so answers reach it
	return m
}

func (c Config) decline(d dialogue, a, server netip.Addr) *v4.DHCPv4 {
	return c.message(d, v4.MessageTypeDecline, optAddress(a), optServerID(server), v4.OptMessage("in use by another host"))
}

func (c Config) giveBack(d dialogue, a, server netip.Addr) *v4.DHCPv4 {
	m := c.message(d, v4.MessageTypeRelease, optServerID(server))
	m.ClientIPAddr = ip(a)
	return m
}

// read4 is the message in a datagram, if it answers the dialogue.
func (c Config) read4(d dialogue, f frame) (m *v4.DHCPv4, from datagram, ok bool) {
	from, ok = readUDP4(f)
	p := from.payload
	if !ok || len(p) < 240 || from.src.Port() != server4 || v4.TransactionID(p[4:8]) != d.id {
		return nil, from, false // before anything is parsed
	}
	m, err := v4.FromBytes(p)
	if err != nil || m.OpCode != v4.OpcodeBootReply || string(m.ClientHWAddr) != string(c.MAC[:]) {
		return nil, from, false
	}
	return m, from, overload(m, p) == nil
}

// overload adds the options that stand in the fields for the names of a server
// and a file (RFC 2132 9.3), which the codec leaves out.
func overload(m *v4.DHCPv4, p []byte) error {
	o := m.Options.Get(optOverload)
	if len(o) != 1 {
		return nil
	}
	if o[0]&1 != 0 {
		if err := m.Options.FromBytes(p[108:236]); err != nil {
			return err
		}
	}
	if o[0]&2 != 0 {
		return m.Options.FromBytes(p[44:108])
	}
	return nil
}
