package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isle/internal/fabric"
)

// container is what inspect says.
type container struct {
	Name  string
	State struct {
		Running bool
		Pid     int
	}
	NetworkSettings struct {
		Networks map[string]struct {
			NetworkID                    string
			IPAddress, GlobalIPv6Address string
			IPAMConfig                   *struct{ IPv4Address string }
		}
	}
}

func (h *host) containers() (all []container, err error) {
	ids, err := h.Try("ps", "-aq")
	if err != nil || strings.TrimSpace(ids) == "" {
		return nil, err
	}
	out, err := h.Try(append([]string{"inspect"}, strings.Fields(ids)...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	return all, err
}

// complete says where what runs on hosts is not what etcd has of them. Who has no address
// had one that the user chose, and that another has now.
func (s *site) complete(v view, all map[*host][]container) (said []string) {
	for h, those := range all {
		var runs []string
		for _, c := range those {
			for name, n := range c.NetworkSettings.Networks {
				if _, shared := v.networks[n.NetworkID]; !shared || !c.State.Running {
					continue
				}
				if n.IPAddress != "" {
					runs = append(runs, place(c.Name[1:], name, n.IPAddress, n.GlobalIPv6Address))
				} else if n.IPAMConfig == nil || v.claims["addr/"+n.NetworkID+"/"+n.IPAMConfig.IPv4Address] == "" {
					said = append(said, fmt.Sprintf("%s: %s has no address on %s", h.name, c.Name, name))
				}
			}
		}
		said = append(said, unlike(h.name+"'s engine", v.places(h.name), tidy(runs))...)
	}
	return said
}

// places are the endpoints of a host, in the words of complete.
func (v view) places(host string) (lines []string) {
	for _, e := range v.endpoints {
		if e.Host == v.id(host) {
			lines = append(lines, place(e.Container, v.networks[e.Network].Name, texts(e)...))
		}
	}
	return tidy(lines)
}

func texts(e fabric.Endpoint) (all []string) {
	for _, a := range e.Addrs {
		all = append(all, a.Addr().String())
	}
	return all
}

func place(container, network string, addrs ...string) string {
	addrs = slices.DeleteFunc(addrs, func(a string) bool { return a == "" })
	slices.SortFunc(addrs, func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) })
	return fmt.Sprintf("%s on %s with %v", container, network, addrs)
}
