package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Result is what a chain of plugins has made so far. Entries of other plugins are kept
// as they are, also where nothing is known of their fields.
type Result struct {
	fields                  map[string]json.RawMessage
	interfaces, ips, routes []json.RawMessage
}

// Interface is one that was made. Sandbox is the namespace's path; "": the host.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
}

// Address is one that the interface inside has.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Route is one that was set inside. Without GW the destination is on the link.
type Route struct {
	Dst netip.Prefix
	GW  netip.Addr
}

// Made is what we made. The last of Interfaces is the one with the addresses.
type Made struct {
	Interfaces []Interface
	Addresses  []Address
	Routes     []Route
	DNS        DNS
}

func parseResult(raw []byte) (r Result, err error) {
	if err = json.Unmarshal(raw, &r.fields); err != nil {
		return r, failf(CodeDecode, "prevResult: %w", err)
	}
	for key, into := range map[string]*[]json.RawMessage{"interfaces": &r.interfaces, "ips": &r.ips, "routes": &r.routes} {
		if part, ok := r.fields[key]; ok {
			if err := json.Unmarshal(part, into); err != nil {
				return r, failf(CodeDecode, "prevResult.%s: %w", key, err)
			}
		}
	}
	return r, nil
}

// With is the result with what we made, in the form of a version of the specification.
func (r Result) With(version string, m Made) ([]byte, error) {
	out := map[string]any{}
	for k, v := range r.fields {
		out[k] = v
	}
	out["cniVersion"] = version
	put(out, "interfaces", r.interfaces, interfaces(version, m))
	put(out, "ips", r.ips, addresses(version, m, len(r.interfaces)+len(m.Interfaces)-1))
	put(out, "routes", r.routes, routes(m))
	if !r.resolves() {
		out["dns"] = m.DNS
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return b, nil
}

func put(out map[string]any, key string, theirs []json.RawMessage, ours []any) {
	var all []any
	for _, o := range theirs {
		all = append(all, o)
	}
	if all = append(all, ours...); len(all) > 0 {
		out[key] = all
	}
}

func interfaces(version string, m Made) (out []any) {
	for _, i := range m.Interfaces {
		if !atLeast(version, "1.1.0") {
			i.MTU = 0
		}
		out = append(out, i)
	}
	return out
}

// addresses: until 1.0.0 their family was said besides.
func addresses(version string, m Made, on int) (out []any) {
	for _, a := range m.Addresses {
		ip := map[string]any{"address": a.Prefix, "interface": on}
		if a.Gateway.IsValid() {
			ip["gateway"] = a.Gateway
		}
		if !atLeast(version, "1.0.0") {
			ip["version"] = map[bool]string{true: "4", false: "6"}[a.Prefix.Addr().Is4()]
		}
		out = append(out, ip)
	}
	return out
}

func routes(m Made) (out []any) {
	for _, r := range m.Routes {
		route := map[string]any{"dst": r.Dst}
		if r.GW.IsValid() {
			route["gw"] = r.GW
		}
		out = append(out, route)
	}
	return out
}

// resolves reports whether a plugin before us has named name servers.
func (r Result) resolves() bool {
	var d DNS
	return json.Unmarshal(r.fields["dns"], &d) == nil && len(d.Nameservers) > 0
}

// Lacks says what of ours is not in the result that ADD gave.
func (r Result) Lacks(inside Interface, addrs []netip.Prefix) (out []string) {
	if !slices.ContainsFunc(r.interfaces, func(raw json.RawMessage) bool {
		var i Interface
		return json.Unmarshal(raw, &i) == nil && i.Name == inside.Name && i.Sandbox == inside.Sandbox
	}) {
		out = append(out, "prevResult has no interface "+inside.Name)
	}
	for _, a := range addrs {
		if !slices.ContainsFunc(r.ips, func(raw json.RawMessage) bool {
			var ip struct {
				Address string `json:"address"`
			}
			return json.Unmarshal(raw, &ip) == nil && ip.Address == a.String()
		}) {
			out = append(out, "prevResult has no address "+a.String())
		}
	}
	return out
}
