package network

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
)

// This file is about endpoints that are held back. What a container gets is held back at
// the host's end of its link, what it sends at its own end.

// Options of endpoints: so many bits per second, with k, M or G behind the number, and
// after a "/" so many bits at once.
const (
	OptIngress = "isle.endpoint.ingress" // to the container
	OptEgress  = "isle.endpoint.egress"  // from it
)

// MostBurst is the most that may come at once, in bits.
const MostBurst = 16_000_000_000

// Rates that the kernel can hold a link to.
const (
	leastRate, mostRate = 8_000, 100_000_000_000 // bits per second
	leastBurst          = 64 << 10               // bytes, when nobody says: as much as a link passes on at once
)

// shape adds to s what holds ep back; s has its link.
func shape(s netspec.State, ep Endpoint) error {
	in, out := ep.Options[OptIngress], ep.Options[OptEgress]
	if in == "" && out == "" {
		return nil
	}
	host, ok := hostEnd(s, ep)
	if !ok {
		return fmt.Errorf("options %s and %s: only a link that ends on the host can be held back, as with driver bridge: %w", OptIngress, OptEgress, errdefs.ErrInvalidArgument)
	}
	for _, end := range []struct {
		option, value string
		shape         netspec.Shape
	}{{OptIngress, in, netspec.Shape{Link: host}}, {OptEgress, out, netspec.Shape{NS: ep.NS(), Link: ep.Interface}}} {
		if end.value == "" {
			continue
		}
		var err error
		if end.shape.Rate, end.shape.Burst, err = ParseRate(end.value); err != nil {
			return fmt.Errorf("option %s: %w", end.option, err)
		}
		s.Add(end.shape)
	}
	return nil
}

func hostEnd(s netspec.State, ep Endpoint) (string, bool) {
	for _, o := range s {
		if l, ok := o.(netspec.Link); ok && l.Kind == netspec.Veth && l.PeerNS == ep.NS() && l.Peer == ep.Interface {
			return l.Name, true
		}
	}
	return "", false
}

// ParseRate reads "10M" or "10M/64k", in bits, and gives bytes.
func ParseRate(text string) (rate uint64, burst uint32, err error) {
	first, second, both := strings.Cut(text, "/")
	bits, err := parseBits(first)
	if err != nil {
		return 0, 0, err
	}
	if bits < leastRate || bits > mostRate {
		return 0, 0, fmt.Errorf("rate %q is not from 8k to 100G bits per second: %w", text, errdefs.ErrInvalidArgument)
	}
	rate = bits / 8
	atOnce := max(rate/100, leastBurst)
	if both {
		if bits, err = parseBits(second); err != nil {
			return 0, 0, err
		}
		atOnce = bits / 8
	}
	if atOnce < 2000 || atOnce > MostBurst/8 {
		return 0, 0, fmt.Errorf("burst of %q is not from 16k to 16G bits: %w", text, errdefs.ErrInvalidArgument)
	}
	return rate, uint32(atOnce), nil
}

func parseBits(s string) (uint64, error) {
	unit := map[byte]uint64{'k': 1e3, 'M': 1e6, 'G': 1e9}
	digits, factor := s, uint64(1)
	if s != "" && unit[s[len(s)-1]] > 0 {
		digits, factor = s[:len(s)-1], unit[s[len(s)-1]]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > 1<<40 {
		return 0, fmt.Errorf("%q is not a number of bits, such as 10M: %w", s, errdefs.ErrInvalidArgument)
	}
	return n * factor, nil
}
