package engine

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/network"
)

const hostsHead = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// writeFiles makes hosts, hostname and resolv.conf of a container that does
// not share those of another.
func (e *Engine) writeFiles(ctx context.Context, rec container.Record, opened network.Opened) error {
	hosts, err := e.hostsFile(ctx, rec, opened)
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{
		e.hostsPath(rec.ID):      hosts,
		e.hostnamePath(rec.ID):   []byte(rec.Config.Hostname + "\n"),
		e.resolvConfPath(rec.ID): e.resolvConf(rec),
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("file of container %s: %w", ids.Short(rec.ID), err)
		}
	}
	return nil
}

// hostsFile is /etc/hosts: of the host's network, the host's own file.
func (e *Engine) hostsFile(ctx context.Context, rec container.Record, opened network.Opened) ([]byte, error) {
	b := []byte(hostsHead)
	if rec.Host.NetworkMode.IsHost() {
		if own, err := os.ReadFile("/etc/hosts"); err == nil {
			b = own
			if len(b) > 0 && b[len(b)-1] != '\n' {
				b = append(b, '\n')
			}
		}
	}
	for _, h := range rec.Host.ExtraHosts {
		name, addrs, err := e.extraHost(ctx, h, opened)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			b = fmt.Appendf(b, "%s\t%s\n", a, name)
		}
	}
	b = append(b, e.linkedHosts(rec)...)
	for _, ep := range opened.Endpoints {
		for _, p := range ep.Addrs {
			b = fmt.Appendf(b, "%s\t%s\n", p.Addr(), hostNames(rec))
		}
	}
	return b, nil
}

// hostNames are the container's own names in its hosts file.
func hostNames(rec container.Record) string {
	h := rec.Config.Hostname
	if rec.Config.Domainname != "" {
		return h + "." + rec.Config.Domainname + " " + h
	}
	return h
}

// extraHost reads "name:address", also "name=address" and "name:host-gateway".
func (e *Engine) extraHost(ctx context.Context, s string, opened network.Opened) (string, []netip.Addr, error) {
	name, value, err := splitExtraHost(s)
	if err != nil {
		return "", nil, err
	}
	if value != "host-gateway" {
		a, err := netip.ParseAddr(strings.Trim(value, "[]"))
		return name, []netip.Addr{a}, err
	}
	addrs := e.hostGateway(ctx, opened)
	if len(addrs) == 0 {
		return "", nil, invalid("unable to derive the IP value for host-gateway")
	}
	return name, addrs, nil
}

func splitExtraHost(s string) (name, value string, err error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 {
		return "", "", invalid("bad format for add-host: %q", s)
	}
	name, value = s[:i], s[i+1:]
	if value == "host-gateway" {
		return name, value, nil
	}
	if _, err := netip.ParseAddr(strings.Trim(value, "[]")); err != nil {
		return "", "", invalid("invalid IP address in add-host: %q", value)
	}
	return name, value, nil
}

// hostGateway is how the container reaches the host: the gateways of the
// default network, else of the first of its own that has some.
func (e *Engine) hostGateway(ctx context.Context, opened network.Opened) []netip.Addr {
	refs := []string{"bridge"}
	for _, ep := range opened.Endpoints {
		refs = append(refs, ep.Network)
	}
	for _, ref := range refs {
		n, err := e.Networks.Find(ctx, ref)
		if err != nil {
			continue
		}
		var addrs []netip.Addr
		for _, p := range n.Pools {
			if p.Gateway.IsValid() {
				addrs = append(addrs, p.Gateway)
			}
		}
		if len(addrs) > 0 {
			return addrs
		}
	}
	return nil
}

// linkedHosts are the lines of --link: other containers by another name.
func (e *Engine) linkedHosts(rec container.Record) []byte {
	var b []byte
	for _, l := range rec.Host.Links {
		ref, alias, _ := strings.Cut(l, ":")
		c, err := e.find(ref)
		if err != nil {
			continue
		}
		other := c.snapshot()
		if alias == "" {
			alias = other.Name
		}
		for _, s := range other.Networks {
			if s.IPAddress.IsValid() {
				b = fmt.Appendf(b, "%s\t%s %s %s\n", s.IPAddress, alias, ids.Short(other.ID), other.Name)
			}
		}
	}
	return b
}

// noResolver: the namespace is not Isle's, so no resolver of ours is in it.
func noResolver(mode apitypes.NetworkMode) bool { return mode.IsHost() || isPath(mode) }

// resolvConf is /etc/resolv.conf: the resolver of the sandbox, with the search
// list and options of the host or of the user. On the host's network it is the
// host's file, as far as the user does not say otherwise.
func (e *Engine) resolvConf(rec container.Record) []byte {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		e.Log.Debug("the host has no resolv.conf", "error", err)
	}
	own := rec.Host
	if noResolver(own.NetworkMode) && len(own.DNS)+len(own.DNSSearch)+len(own.DNSOptions) == 0 {
		return host
	}
	r := parseResolvConf(host)
	if noResolver(own.NetworkMode) {
		for i, a := range own.DNS {
			if i == 0 {
				r.servers = nil
			}
			r.servers = append(r.servers, a.String())
		}
	} else {
		r.servers = []string{network.ResolverAddr.String()}
		r.options = withoutNdots(r.options)
	}
	r.search = firstOf(own.DNSSearch, e.Config.Network.DNSSearch, r.search)
	r.options = firstOf(own.DNSOptions, e.Config.Network.DNSOptions, r.options)
	if !noResolver(own.NetworkMode) {
		r.options = namesFirst(r.options)
	}
	return r.bytes()
}

type resolvConf struct{ servers, search, options []string }

func parseResolvConf(b []byte) (r resolvConf) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

func (r resolvConf) bytes() []byte {
	b := []byte("# Written by Isle. Names of containers are resolved here, others passed on.\n")
	for _, s := range r.servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	if len(r.search) > 0 && !(len(r.search) == 1 && r.search[0] == ".") { // "." means: no search list
		b = fmt.Appendf(b, "search %s\n", strings.Join(r.search, " "))
	}
	if len(r.options) > 0 {
		b = fmt.Appendf(b, "options %s\n", strings.Join(r.options, " "))
	}
	return b
}

// namesFirst adds ndots:0 unless the user said another: a container's name is
// asked for as it is, and does not go outside with a search domain.
func namesFirst(opts []string) []string {
	for _, o := range opts {
		n, is := strings.CutPrefix(o, "ndots:")
		if _, err := strconv.ParseUint(n, 10, 8); is && err == nil {
			return opts
		}
	}
	return append(withoutNdots(opts), "ndots:0")
}

func withoutNdots(opts []string) []string {
	var out []string
	for _, o := range opts {
		if !strings.HasPrefix(o, "ndots:") {
			out = append(out, o)
		}
	}
	return out
}

func firstOf(lists ...[]string) []string {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}
