package dns

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// HostConfig is the name servers of the host: those given, else those of the
// file, which is read again when it has changed.
type HostConfig struct {
	Given []netip.AddrPort
	Path  string // "": /etc/resolv.conf

	mu      sync.Mutex
	looked  time.Time
	stamp   time.Time
	size    int64
	servers []netip.AddrPort
	search  []string
}

// Servers are the name servers now. It looks at the file at most once a second.
func (h *HostConfig) Servers() []netip.AddrPort {
	if len(h.Given) > 0 {
		return h.Given
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.looked) < time.Second {
		return h.servers
	}
	h.looked = time.Now()
	path := cmp.Or(h.Path, "/etc/resolv.conf")
	st, err := os.Stat(path)
	if err != nil || (st.ModTime().Equal(h.stamp) && st.Size() == h.size) {
		return h.servers
	}
	if b, err := os.ReadFile(path); err == nil {
		h.stamp, h.size = st.ModTime(), st.Size()
		h.servers, h.search = parseHost(b)
	}
	return h.servers
}

// searches reports whether name is below a domain that the host searches.
func (h *HostConfig) searches(name string) bool {
	h.Servers() // looks at the file
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.search, func(domain string) bool { return under(name, "."+strings.TrimSuffix(domain, ".")) })
}

func parseHost(conf []byte) (servers []netip.AddrPort, search []string) {
	for line := range bytes.Lines(conf) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				servers = append(servers, netip.AddrPortFrom(a, 53))
			}
		case "search", "domain":
			search = strings.Fields(strings.ToLower(strings.Join(f[1:], " ")))
		}
	}
	return servers, search
}

// ParseServer reads "address" or "address:port".
func ParseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, fmt.Errorf("invalid name server %q: %w", s, err)
	}
	return ap, nil
}
