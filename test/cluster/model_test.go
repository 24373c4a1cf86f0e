package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/fabric"
)

// names are those that anybody had: what is gone must not be answered for.
type names map[string]bool

// view is what etcd has, read as any host reads it, but not by isled.
type view struct {
	hosts     map[string]fabric.Host
	networks  map[string]fabric.Network
	endpoints []fabric.Endpoint
	claims    map[string]string // KIND/… of what only one can have → whose it is
}

// read asks the etcd of a member that lives.
func (s *site) read(at *host) (v view, err error) {
	c, err := s.etcd(at)
	if err != nil {
		return v, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	res, err := c.Get(ctx, "/isle/", clientv3.WithPrefix())
	if err != nil {
		return v, err
	}
	v = view{hosts: map[string]fabric.Host{}, networks: map[string]fabric.Network{}, claims: map[string]string{}}
	for _, kv := range res.Kvs {
		if err := v.take(strings.Split(string(kv.Key), "/"), kv.Value); err != nil {
			return v, fmt.Errorf("%s: %w", kv.Key, err)
		}
	}
	return v, nil
}

// take notes a record: /isle/fabric/KIND/ID, or a claim.
func (v *view) take(key []string, value []byte) (err error) {
	claim := strings.Join(key[2:], "/")
	switch key[2] {
	case "addr", "vni":
		v.claims[claim] = string(value)
	case "name":
		if key[3] == "network" {
			v.claims[claim] = string(value)
		}
	case "subnet":
		v.claims[claim] = key[3]
	}
	if key[2] != "fabric" {
		return nil
	}
	switch id := key[len(key)-1]; key[3] {
	case "host":
		var h fabric.Host
		err = json.Unmarshal(value, &h)
		v.hosts[id] = h
	case "network":
		var n fabric.Network
		err = json.Unmarshal(value, &n)
		v.networks[id] = n
	case "endpoint":
		var e fabric.Endpoint
		err = json.Unmarshal(value, &e)
		v.endpoints = append(v.endpoints, e)
	}
	return err
}

// claimed are the claims that there should be: of what there is, and no others.
func (v view) claimed() map[string]string {
	all := map[string]string{}
	for id, n := range v.networks {
		all["subnet/"+id] = id
		all["name/network/"+n.Name] = id
		all[fmt.Sprintf("vni/%08d", n.VNI)] = id
	}
	for _, e := range v.endpoints {
		for _, a := range e.Addrs {
			all["addr/"+e.Network+"/"+a.Addr().String()] = e.ID
		}
	}
	return all
}

// addr is where the host is on its segment.
func (h *host) addr() string {
	out, err := exec.Command("ip", "-n", h.name, "-o", "-4", "addr", "show", "dev", "eth0", "scope", "global").Output()
	h.must(err)
	a, _, _ := strings.Cut(strings.Fields(string(out))[3], "/")
	return a
}

func (v view) id(name string) string {
	for id, h := range v.hosts {
		if h.Name == name {
			return id
		}
	}
	return ""
}

// links are the names of a network's tunnel and bridge: what README.md of the driver draws.
func links(n fabric.Network) (tunnel, bridge string) {
	return ("islex" + n.ID)[:15], ("isle-" + n.ID)[:15]
}

// wanted is what the kernel of a host has to have: nothing of a network that it has no
// container on.
func (v view) wanted(host string) (lines []string) {
	here := map[string]bool{}
	for _, e := range v.endpoints {
		here[e.Network] = here[e.Network] || e.Host == host
	}
	for id, n := range v.networks {
		if here[id] {
			_, bridge := links(n)
			for _, p := range subnets(n) {
				lines = append(lines, fmt.Sprintf("route %s %s", bridge, p))
			}
		}
	}
	for _, e := range v.endpoints {
		if here[e.Network] && e.Host != host {
			lines = append(lines, v.remote(e)...)
		}
	}
	return tidy(lines)
}

// remote is what an endpoint of another host is in a kernel.
func (v view) remote(e fabric.Endpoint) []string {
	tunnel, bridge := links(v.networks[e.Network])
	end, mac := v.hosts[e.Host].Addr, station(e)
	lines := []string{
		fmt.Sprintf("copies %s %s", tunnel, end),
		fmt.Sprintf("station %s %s %s", tunnel, mac, end),
		fmt.Sprintf("station %s %s bridge", tunnel, mac),
	}
	for _, a := range e.Addrs {
		lines = append(lines, fmt.Sprintf("neighbour %s %s %s", bridge, a.Addr(), mac))
	}
	return lines
}

// station is an endpoint's MAC address: it follows from the address where none was asked for.
func station(e fabric.Endpoint) net.HardwareAddr {
	if e.MAC != [6]byte{} {
		return e.MAC[:]
	}
	sum := sha256.Sum256([]byte(e.Network + "/" + e.Addrs[0].Addr().String()))
	return append(net.HardwareAddr{2}, sum[:5]...)
}

func subnets(n fabric.Network) (out []netip.Prefix) {
	var r struct {
		Pools []struct{ Subnet netip.Prefix }
	}
	if json.Unmarshal(n.Record, &r) != nil {
		return nil
	}
	for _, p := range r.Pools {
		out = append(out, p.Subnet)
	}
	return out
}

func tidy(lines []string) []string {
	slices.Sort(lines)
	return slices.Compact(lines)
}

// kernel is what the kernel of a host has of overlay networks, in the words of wanted.
func (h *host) kernel() (lines []string) {
	overlay := map[string]bool{} // bridges
	for _, e := range h.entries("bridge", "fdb", "show") {
		own := e.Master != "" && string(e.State) == `"permanent"` // the port's own address
		if strings.HasPrefix(e.IfName, "islex") && !own {
			lines = append(lines, e.station())
		}
	}
	for _, e := range h.entries("ip", "link", "show", "type", "vxlan") {
		overlay[e.Master] = true
	}
	for _, family := range []string{"-4", "-6"} {
		for _, e := range h.entries("ip", family, "neigh", "show", "nud", "permanent") {
			if strings.HasPrefix(e.Dev, "isle-") {
				lines = append(lines, fmt.Sprintf("neighbour %s %s %s", e.Dev, e.Dst, e.LLAddr))
			}
		}
		for _, e := range h.entries("ip", family, "route", "show") {
			if overlay[e.Dev] && !strings.HasPrefix(e.Dst, "fe80:") {
				lines = append(lines, fmt.Sprintf("route %s %s", e.Dev, e.Dst))
			}
		}
	}
	return tidy(lines)
}

// entry is what ip and bridge print.
type entry struct {
	IfName, Dev, Dst, Mac, LLAddr, Master string
	State                                 json.RawMessage // a word, or several
}

func (e entry) station() string {
	switch {
	case e.Mac == "00:00:00:00:00:00":
		return fmt.Sprintf("copies %s %s", e.IfName, e.Dst)
	case e.Master != "":
		return fmt.Sprintf("station %s %s bridge", e.IfName, e.Mac)
	}
	return fmt.Sprintf("station %s %s %s", e.IfName, e.Mac, e.Dst)
}

func (h *host) entries(program string, args ...string) (all []entry) {
	h.t.Helper()
	out, err := exec.Command(program, append([]string{"-n", h.name, "-j"}, args...)...).Output()
	h.must(err)
	if len(strings.TrimSpace(string(out))) > 0 {
		h.must(json.Unmarshal(out, &all))
	}
	return all
}

// model waits until what the hosts have is what etcd says, as at reads it: in the kernel,
// and in what containers are told of names.
func (s *site) model(at *host, hosts ...*host) {
	s.t.Helper()
	var said []string
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		v, err := s.read(at)
		if err == nil {
			if said = s.compare(v, hosts); len(said) == 0 {
				return
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("model: %v\n%s\n--- %s: %s", err, strings.Join(said, "\n"), at.name, at.Tail())
		}
	}
}

// compare says where hosts are not as etcd says.
func (s *site) compare(v view, hosts []*host) (said []string) {
	if want := v.claimed(); !maps.Equal(want, v.claims) {
		return []string{fmt.Sprintf("etcd itself: claims are %v, not %v", v.claims, want)}
	}
	for _, h := range hosts {
		want, got := v.wanted(v.id(h.name)), h.kernel()
		said = append(said, unlike(h.name, want, got)...)
	}
	all := map[*host][]container{}
	for _, h := range hosts {
		those, err := h.containers()
		if err != nil {
			return []string{fmt.Sprintf("%s: %v", h.name, err)}
		}
		all[h] = those
	}
	said = append(said, s.complete(v, all)...)
	if len(said) > 0 {
		return said
	}
	for _, e := range v.endpoints {
		for _, name := range e.Names {
			s.seen[name] = true
		}
	}
	for _, h := range hosts {
		said = append(said, s.look(v, h, all[h])...)
	}
	return said
}

func unlike(who string, want, got []string) (said []string) {
	for _, l := range want {
		if !slices.Contains(got, l) {
			said = append(said, who+" lacks "+l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			said = append(said, who+" has "+l)
		}
	}
	return said
}

// answers are the addresses of each name, as who is on some networks is told.
func (v view) answers(on map[string]bool) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for _, e := range v.endpoints {
		if !on[e.Network] {
			continue
		}
		for _, name := range e.Names {
			for _, a := range e.Addrs {
				all[name] = append(all[name], a.Addr())
			}
		}
	}
	return all
}

// look looks into the containers of a host: they have the addresses that etcd says, and the
// one on most networks asks for every name that ever was.
func (s *site) look(v view, h *host, those []container) (said []string) {
	have, on := map[string][]netip.Addr{}, map[string]map[string]bool{}
	for _, e := range v.endpoints {
		if e.Host != v.id(h.name) {
			continue
		}
		if on[e.Container] == nil {
			on[e.Container] = map[string]bool{}
		}
		on[e.Container][e.Network] = true
		for _, a := range e.Addrs {
			have[e.Container] = append(have[e.Container], a.Addr())
		}
	}
	var asks, asksPid string
	for _, c := range those {
		name, pid := c.Name[1:], strconv.Itoa(c.State.Pid)
		if have[name] == nil {
			continue
		}
		got, err := addresses(pid)
		said = append(said, differ(h.name, name+" itself", have[name], got, err)...)
		if len(on[name]) > len(on[asks]) {
			asks, asksPid = name, pid
		}
	}
	if asks != "" {
		said = append(said, s.ask(h.name+"'s "+asks, asksPid, v.answers(on[asks]))...)
	}
	return said
}

// ask asks for every name that ever was.
func (s *site) ask(who, pid string, want map[string][]netip.Addr) (said []string) {
	for name := range s.seen {
		got, err := resolve(pid, name)
		said = append(said, differ(who, name, want[name], got, err)...)
	}
	return said
}

func differ(who, name string, want, got []netip.Addr, err error) []string {
	for _, addrs := range [][]netip.Addr{want, got} {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	if slices.Equal(slices.Compact(got), slices.Compact(want)) {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s is %v (%v), not %v", who, name, got, err, want)}
}
