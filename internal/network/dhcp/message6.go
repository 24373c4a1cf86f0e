package dhcp

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// asked6 is the option request option.
var asked6 = []v6.OptionCode{v6.OptionDNSRecursiveNameServer, v6.OptionDomainSearchList, v6.OptionNTPServer}

// message6 is what is sent: with the IA of these addresses, unless it has none.
type message6 struct {
	kind  v6.MessageType
	id    v6.TransactionID
	start time.Time
	// server is the DUID of whom it is for; empty: anybody.
	server []byte
	ia     bool
	addrs  []netip.Addr
	rapid  bool
}

func newMessage6(kind v6.MessageType) message6 {
	m := message6{kind: kind, start: time.Now()}
	_, _ = rand.Read(m.id[:]) // it never fails
	return m
}

// bytes are the message as it is sent now.
func (m message6) bytes(c Config) []byte {
	p := v6.Message{MessageType: m.kind, TransactionID: m.id}
	p.AddOption(generic(v6.OptionClientID, c.DUID))
	if len(m.server) > 0 {
		p.AddOption(generic(v6.OptionServerID, m.server))
	}
	p.AddOption(v6.OptElapsedTime(min(time.Since(m.start), 655*time.Second)))
	if m.ia {
		p.AddOption(c.association(m.addrs))
	}
	switch m.kind {
	case v6.MessageTypeRelease, v6.MessageTypeDecline, v6.MessageTypeConfirm:
		return p.ToBytes()
	}
	codes := asked6
	if m.kind == v6.MessageTypeInformationRequest {
		codes = append(codes[:len(codes):len(codes)], v6.OptionInformationRefreshTime)
	}
	p.AddOption(v6.OptRequestedOption(codes...))
	if m.rapid {
		p.AddOption(generic(v6.OptionRapidCommit, nil))
	}
	c.itself(&p)
	return p.ToBytes()
}

// itself is what a client says of itself.
func (c Config) itself(p *v6.Message) {
	if c.UserClass != "" {
		p.AddOption(&v6.OptUserClass{UserClasses: [][]byte{[]byte(c.UserClass)}})
	}
	switch {
	case c.FQDN != "":
		l := rfc1035label.Labels{Labels: []string{c.FQDN}}
		p.AddOption(generic(v6.OptionFQDN, append([]byte{1}, l.ToBytes()...))) // S: the server enters it
	case isDomain(c.Hostname) && len(c.Hostname) < 64:
		// A name without an end is a part of one (RFC 4704 4.2).
		p.AddOption(generic(v6.OptionFQDN, append([]byte{1, byte(len(c.Hostname))}, c.Hostname...)))
	}
}

func (c Config) association(addrs []netip.Addr) v6.Option {
	ia := &v6.OptIANA{IaId: c.iaid()}
	for _, a := range addrs {
		ia.Options.Add(&v6.OptIAAddress{IPv6Addr: ip(a)})
	}
	return ia
}

func generic(code v6.OptionCode, b []byte) v6.Option {
	return &v6.OptionGeneric{OptionCode: code, OptionData: b}
}

// reply6 is an answer, with the options that matter read.
type reply6 struct {
	kind   v6.MessageType
	server []byte
	opts   v6.Options
	raw    []Option
}

// read6 is the answer to a message in a frame.
func (c Config) read6(m message6, f frame) (r reply6, ok bool) {
	d, ok := readUDP6(f)
	p := d.payload
	if !ok || len(p) < 4 || [3]byte(p[1:4]) != m.id || !d.src.Addr().IsLinkLocalUnicast() && !usable6(d.src.Addr()) {
		return r, false
	}
	r.kind = v6.MessageType(p[0])
	if err := r.opts.FromBytesWithParser(p[4:], r.parse); err != nil {
		return r, false
	}
	r.server = r.get(v6.OptionServerID)
	valid := len(r.server) >= 3 && len(r.server) <= 130 && bytes.Equal(r.get(v6.OptionClientID), c.DUID)
	return r, valid && (len(m.server) == 0 || bytes.Equal(m.server, r.server))
}

// parse reads the options with others in them, and leaves the rest as bytes: what
// is malformed there does not spoil the message.
func (r *reply6) parse(code v6.OptionCode, b []byte) (v6.Option, error) {
	r.raw = append(r.raw, Option{uint16(code), bytes.Clone(b)})
	switch code {
	case v6.OptionIANA, v6.OptionStatusCode:
		return v6.ParseOption(code, b)
	}
	return generic(code, bytes.Clone(b)), nil
}

func (r *reply6) get(code v6.OptionCode) []byte {
	if g, ok := r.opts.GetOne(code).(*v6.OptionGeneric); ok {
		return g.OptionData
	}
	return nil
}

func (r *reply6) has(code v6.OptionCode) bool { return r.opts.GetOne(code) != nil }

// status is why a server refuses; success has no error.
func status(opts v6.Options) error {
	s, ok := opts.GetOne(v6.OptionStatusCode).(*v6.OptStatusCode)
	if !ok || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	return &statusError{s.StatusCode, shortened(s.StatusMessage)}
}

type statusError struct {
	code iana.StatusCode
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the DHCPv6 server says %s %q", e.code, e.text)
}

// Is makes it a refusal.
func (e *statusError) Is(target error) bool { return target == errRefused }
