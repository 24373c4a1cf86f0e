package network

import (
	"encoding/json"
	"net/netip"
	"strings"

	"isle/internal/netspec"
)

// Parent is an interface of the host that networks can be on, as it is now.
type Parent struct {
	Name     string // that networks know it by
	Now      string `json:",omitempty"` // its name, when somebody has changed it since
	Master   string `json:",omitempty"` // what it is a port of
	MTU      int
	MAC      netspec.MAC
	Up       bool
	Carrier  bool
	Wireless bool       `json:",omitempty"`
	Addr4    netip.Addr // the host's own there; invalid: none
	Addr6    netip.Addr
}

// Parents writes interfaces as Host.Parents has them.
func Parents(list []Parent) string {
	var b strings.Builder
	for _, p := range list {
		text, err := json.Marshal(p)
		if err != nil { // it has no field that could fail
			panic(err)
		}
		b.WriteString(p.Name + "\t" + string(text) + "\n")
	}
	return b.String()
}

// Parent finds an interface of the host that is not one of ours.
func (h Host) Parent(name string) (p Parent, ok bool) {
	for line := range strings.Lines(h.Parents) {
		if text, found := strings.CutPrefix(line, name+"\t"); found {
			return p, json.Unmarshal([]byte(text), &p) == nil
		}
	}
	return p, false
}

// only is h without the interfaces that no network is on: those of others come and
// go all the time.
func (h Host) only(used map[string]bool) Host {
	var b strings.Builder
	for line := range strings.Lines(h.Parents) {
		if name, _, _ := strings.Cut(line, "\t"); used[name] {
			b.WriteString(line)
		}
	}
	h.Parents = b.String()
	return h
}
