package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Mistake is a value that isled cannot work with.
type Mistake struct {
	Key  string // as "network.dns"
	text string
}

// Error implements error.
func (m *Mistake) Error() string { return m.Key + " " + m.text }

// Unwrap is the class.
func (m *Mistake) Unwrap() error { return errdefs.ErrInvalidArgument }

var (
	linkPrefix = regexp.MustCompile(`^[a-z][a-z0-9]{0,4}$`)
	tableName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]{0,63}$`) // also of a directory
	linkName   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,14}$`)
	oneWord    = regexp.MustCompile(`^\S+$`)
)

// Check reports what in c cannot work, as a *Mistake.
func (c Config) Check() error {
	for _, check := range []func() *Mistake{c.checkHost, c.Network.checkNames, c.Network.checkNumbers, c.Network.checkAddresses, c.Network.checkDNS, c.Network.checkPools, c.Network.checkCNI, c.Cluster.check, c.Cluster.checkKeys, c.Cluster.checkEtcd} {
		if m := check(); m != nil {
			return m
		}
	}
	return nil
}

func mistake(key, format string, args ...any) *Mistake {
	return &Mistake{key, fmt.Sprintf(format, args...)}
}

func (c Config) checkHost() *Mistake {
	switch {
	case !filepath.IsAbs(c.DataDir):
		return mistake("data-dir", "%q must be an absolute path", c.DataDir)
	case !filepath.IsAbs(c.RunDir):
		return mistake("run-dir", "%q must be an absolute path", c.RunDir)
	case !slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.LogLevel)):
		return mistake("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	case !slices.Contains([]string{"", "cgroupfs", "systemd"}, c.CgroupDriver):
		return mistake("cgroup-driver", "%q is neither cgroupfs nor systemd", c.CgroupDriver)
	}
	return nil
}

func (n Network) checkNames() *Mistake {
	switch {
	case !linkPrefix.MatchString(n.LinkPrefix):
		return mistake("network.link-prefix", "%q is not 1 to 5 lower-case letters and digits", n.LinkPrefix)
	case !tableName.MatchString(n.Table):
		return mistake("network.nft-table", "%q is not 1 to 64 letters, digits, '_', '-' and '.', beginning with a letter", n.Table)
	case n.Bridge == "lo" || !linkName.MatchString(n.Bridge):
		return mistake("network.bridge", "%q cannot be the name of a link", n.Bridge)
	}
	return nil
}

func (n Network) checkNumbers() *Mistake {
	switch {
	case n.LinkGroup < 1 || n.LinkGroup > 1<<31-1:
		return mistake("network.link-group", "%d must be positive: 0 is the group of all links", n.LinkGroup)
	case n.GuardMark&(n.GuardMark-1) != 0:
		return mistake("network.guard-mark", "%d must be one bit (a power of two), or 0", n.GuardMark)
	case n.ResyncSeconds < 0:
		return mistake("network.resync-seconds", "%d must not be negative", n.ResyncSeconds)
	}
	return nil
}

func (n Network) checkAddresses() *Mistake {
	if p, err := netip.ParsePrefix(n.Subnet); n.Subnet != "" && (err != nil || !ofNetwork(p)) {
		return mistake("network.subnet", "%q is not an IPv4 prefix such as 10.5.0.0/16", n.Subnet)
	}
	if p, err := netip.ParsePrefix(n.PoolV6); n.PoolV6 != "" && (err != nil || p.Addr().Is4() || p != p.Masked() || p.Bits() > 64) {
		return mistake("network.pool-v6", "%q is not an IPv6 prefix of at most 64 bits, such as fd00:5::/48", n.PoolV6)
	}
	if a, err := netip.ParseAddr(n.HostBinding); n.HostBinding != "" && (err != nil || a.Zone() != "") {
		return mistake("network.host-binding", "%q is not an IP address", n.HostBinding)
	}
	return nil
}

// ofNetwork: containers can have addresses of p.
func ofNetwork(p netip.Prefix) bool {
	a := p.Addr()
	return a.Is4() && p == p.Masked() && p.Bits() < 32 && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

func (n Network) checkDNS() *Mistake {
	for _, s := range n.DNS {
		_, noAddr := netip.ParseAddr(strings.Trim(s, "[]"))
		if _, noPort := netip.ParseAddrPort(s); noAddr != nil && noPort != nil {
			return mistake("network.dns", "%q is neither an IP address nor one with a port", s)
		}
	}
	for key, words := range map[string][]string{"network.dns-search": n.DNSSearch, "network.dns-options": n.DNSOptions} {
		for _, w := range words {
			if !oneWord.MatchString(w) {
				return mistake(key, "%q is not one word", w)
			}
		}
	}
	return nil
}

func (n Network) checkPools() *Mistake {
	if len(n.Pools) == 0 {
		return mistake("network.pools", "is empty")
	}
	for _, p := range n.Pools {
		if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen()-2 {
			return mistake("network.pools", "has %s, which cannot be cut into subnets of /%d", p.Base, p.Size)
		}
	}
	return nil
}

func (n Network) checkCNI() *Mistake {
	for key, dirs := range map[string][]string{"network.cni-plugin-dirs": n.CNIPluginDirs, "network.cni-conf-dirs": n.CNIConfDirs} {
		for _, dir := range dirs {
			if !filepath.IsAbs(dir) || strings.ContainsRune(dir, os.PathListSeparator) {
				return mistake(key, "%q must be an absolute path without ':'", dir)
			}
		}
	}
	if n.CNITimeout < 1 || n.CNITimeout > 3600 {
		return mistake("network.cni-timeout-seconds", "%d must be from 1 to 3600", n.CNITimeout)
	}
	return nil
}

func (c Cluster) check() *Mistake {
	if a, err := netip.ParseAddr(c.Advertise); c.Advertise != "" && (err != nil || a.Zone() != "" || a.IsUnspecified()) {
		return mistake("cluster.advertise", "%q is not an IP address that others could reach", c.Advertise)
	}
	if c.LeaseSeconds < 3 || c.LeaseSeconds > 300 {
		return mistake("cluster.lease-seconds", "%d is not in 3 to 300", c.LeaseSeconds)
	}
	for key, port := range map[string]uint16{"cluster.port": c.Port, "cluster.client-port": c.ClientPort, "cluster.peer-port": c.PeerPort} {
		if port == 0 {
			return mistake(key, "must not be 0")
		}
	}
	if c.Port == c.ClientPort || c.Port == c.PeerPort || c.ClientPort == c.PeerPort {
		return mistake("cluster.port", "%d, client-port %d and peer-port %d must be different", c.Port, c.ClientPort, c.PeerPort)
	}
	return nil
}

func (c Cluster) checkKeys() *Mistake {
	switch {
	case c.SealPort == 0 || c.SealPort == 1<<16-1:
		return mistake("cluster.wireguard-port", "%d is not in 1 to 65534: the next port is needed too", c.SealPort)
	case c.KeyDays < 0 || c.KeyDays > 3650:
		return mistake("cluster.wireguard-key-days", "%d is not in 0 to 3650", c.KeyDays)
	}
	return nil
}

func (c Cluster) checkEtcd() *Mistake {
	for _, s := range c.Etcd {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return mistake("cluster.etcd", "%q is not a URL such as https://10.0.0.5:2379", s)
		}
	}
	switch {
	case !strings.HasPrefix(c.EtcdPrefix, "/") || strings.HasSuffix(c.EtcdPrefix, "/"):
		return mistake("cluster.etcd-prefix", "%q does not begin with '/', or ends with it", c.EtcdPrefix)
	case (c.EtcdCert == "") != (c.EtcdKey == ""):
		return mistake("cluster.etcd-cert", "and etcd-key are given together")
	case (c.EtcdUser == "") != (c.EtcdPassword == ""):
		return mistake("cluster.etcd-user", "and etcd-password-file are given together")
	}
	return nil
}

// Located is err with the place in the file where its mistake is; one that the
// file does not make comes from the command line.
func Located(err error, path string) error {
	m, ok := errors.AsType[*Mistake](err)
	if !ok {
		return err
	}
	b, _ := os.ReadFile(path) // none: the mistake is not in it
	if line := lineOf(b, m.Key); line > 0 {
		return fmt.Errorf("configuration %s:%d: %w", path, line, err)
	}
	return fmt.Errorf("configuration: %w", err)
}

// lineOf is the first line of a file that gives key, below its table or in full;
// 0: none.
func lineOf(file []byte, key string) int {
	table, n := "", 0
	for line := range bytes.Lines(file) {
		n++
		s := strings.TrimSpace(string(line))
		if strings.HasPrefix(s, "[") {
			name, _, _ := strings.Cut(strings.Trim(s, "[ "), "]")
			if table = strings.TrimSpace(name); table == key {
				return n
			}
			continue
		}
		name, _, _ := strings.Cut(s, "=")
		if name = strings.Trim(strings.TrimSpace(name), `"'`); name == key && table == "" || table+"."+name == key {
			return n
		}
	}
	return 0
}
