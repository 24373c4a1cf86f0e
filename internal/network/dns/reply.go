package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	ttl     = 5    // seconds: a container may be gone in the next moment
	udpSize = 1232 // what we can take in one datagram, as we tell clients
)

// reply answers q if it can be answered here; forward: it is to be asked
// outside. A nil reply without forward: q is not worth an answer.
func (r *Records) reply(c Client, q *dns.Msg) (resp *dns.Msg, forward bool) {
	if q.Response {
		return nil, false // answering answers is how two servers talk for ever
	}
	resp = new(dns.Msg).SetReply(q)
	resp.RecursionAvailable, resp.Compress = true, true
	echoEDNS(resp, q)
	switch {
	case resp.Rcode == dns.RcodeBadVers:
		return resp, false
	case q.Opcode != dns.OpcodeQuery:
		resp.Rcode = dns.RcodeNotImplemented
		return resp, false
	case len(q.Question) != 1:
		resp.Rcode = dns.RcodeFormatError
		return resp, false
	}
	question := q.Question[0]
	if question.Qclass != dns.ClassINET && question.Qclass != dns.ClassANY {
		resp.Rcode = dns.RcodeRefused
		return resp, false
	}
	return resp, r.fill(c, resp, question)
}

func (r *Records) fill(c Client, resp *dns.Msg, q dns.Question) (forward bool) {
	name := strings.TrimSuffix(q.Name, ".")
	var a Answer
	if addr, ok := reverse(name); ok {
		a = r.Addr(c, addr)
	} else {
		a = r.Name(c, name)
	}
	if !a.Found {
		resp.Rcode = dns.RcodeNameError
		return a.Forward
	}
	resp.Authoritative = true
	if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
		for _, n := range a.Names {
			resp.Answer = append(resp.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(n)})
		}
	}
	addrs := slices.Clone(a.Addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, ip := range addrs {
		if rr := address(q, ip); rr != nil {
			resp.Answer = append(resp.Answer, rr)
		}
	}
	return false
}

func address(q dns.Question, ip netip.Addr) dns.RR {
	any := q.Qtype == dns.TypeANY
	switch {
	case ip.Is4() && (any || q.Qtype == dns.TypeA):
		return &dns.A{Hdr: header(q.Name, dns.TypeA), A: ip.AsSlice()}
	case ip.Is6() && (any || q.Qtype == dns.TypeAAAA):
		return &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: ip.AsSlice()}
	}
	return nil
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// echoEDNS answers an OPT record with one of ours.
func echoEDNS(resp, q *dns.Msg) {
	opt := q.IsEdns0()
	if opt == nil {
		return
	}
	resp.SetEdns0(udpSize, opt.Do())
	if opt.Version() != 0 {
		resp.Rcode = dns.RcodeBadVers
	}
}

// size is how large a datagram the client of q takes.
func size(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), 4096)
	}
	return dns.MinMsgSize
}
