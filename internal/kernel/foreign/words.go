package foreign

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"isle/internal/kernel/nlmsg"
	"isle/internal/ruleset"
)

var protocolNames = map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

// value is what a field is compared with, in the words of nft.
func value(what string, b []byte) string {
	switch what {
	case "iifname", "oifname":
		if name := nlmsg.Str(b); len(name) == len(b) && len(b) < 16 {
			return strconv.Quote(name + "*") // a comparison of the beginning only
		}
		return strconv.Quote(nlmsg.Str(b))
	case "ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr", "ct original daddr":
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case "ip protocol", "meta l4proto":
		if name := protocolNames[first(b)]; name != "" {
			return name
		}
	case "meta nfproto":
		return map[byte]string{2: "ipv4", 10: "ipv6"}[first(b)]
	case "sport", "dport", "ct original proto-dst":
		if len(b) == 2 {
			return strconv.Itoa(int(binary.BigEndian.Uint16(b)))
		}
	case "ct state":
		return named(b, []string{"invalid", "established", "related", "new"})
	case "ct status":
		return named(b, []string{"expected", "seen-reply", "assured", "confirmed", "snat", "dnat"})
	case "fib daddr type", "fib saddr type":
		if n := nlmsg.U32(b); n < 6 {
			return []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast"}[n]
		}
	case "meta mark", "ct mark", "iif", "oif":
		return strconv.Itoa(int(nlmsg.U32(b)))
	}
	return fmt.Sprintf("0x%x", b)
}

func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// named are the bits that are set by their names.
func named(b []byte, names []string) string {
	var out []string
	for v := nlmsg.U32(b); v != 0; v &= v - 1 {
		if i := bits.TrailingZeros32(v); i < len(names) {
			out = append(out, names[i])
		} else {
			out = append(out, fmt.Sprintf("0x%x", 1<<i))
		}
	}
	return strings.Join(out, ",")
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// prefixWords is an address, or the network that is compared by its beginning or
// with a mask.
func prefixWords(b []byte, mask string) string {
	length := 8 * len(b)
	full := make([]byte, 4)
	copy(full, b)
	if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
		v := m.As4()
		length = bits.LeadingZeros32(^binary.BigEndian.Uint32(v[:]))
	}
	a, _ := netip.AddrFromSlice(full)
	if length == 32 {
		return a.String()
	}
	return netip.PrefixFrom(a, length).String()
}

// most is how many elements of a set are written out.
const most = 6

func setWords(what string, s ruleset.Set) string {
	var out []string
	for i, e := range s.Elements {
		if i == most {
			out = append(out, "…")
			break
		}
		out = append(out, elementWords(what, s, e))
	}
	return "{ " + strings.Join(out, ", ") + " }"
}

func elementWords(what string, s ruleset.Set, e ruleset.Element) string {
	if len(s.Fields) > 1 {
		what = ""
	}
	w := value(what, e.Key)
	if e.Last != nil && string(e.Last) != string(e.Key) {
		w += "-" + value(what, e.Last)
	}
	if len(e.Key) == 0 {
		w = "*"
	}
	if e.Verdict != nil {
		w += " : " + strings.TrimSpace(verdicts[e.Verdict.Code]+" "+e.Verdict.Chain)
	}
	return w
}
