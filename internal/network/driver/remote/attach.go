package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/undo"
)

// mostInfo is how many bytes of a plugin's information on an endpoint are kept.
const mostInfo = 32 << 10

// raw is what is kept of an endpoint besides what the Manager understands: for
// inspect, and to find its link again.
type raw struct {
	Source   string           `json:",omitempty"` // the link's name on the host
	Link     netspec.Seated   // zero: it has none
	Endpoint *iface           `json:",omitempty"` // the answer to CreateEndpoint
	Join     joinedWords      // the answer to Join
	Info     *json.RawMessage `json:",omitempty"` // the answer to EndpointOperInfo
}

// Attach implements network.External. The order is Docker's: CreateEndpoint, Join,
// then the link goes where it belongs, then the way to the outside. A link that is in
// the container already was left by a crash, and is made anew.
func (d Driver) Attach(ctx context.Context, a network.Attachment) (res network.Result, err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	w := d.plugin.begin(true)
	if err := d.plugin.about(d.bringBack(ctx, a)); err != nil {
		return res, err
	}
	ep, err := d.createEndpoint(ctx, w, a, &u)
	if err != nil {
		return res, err
	}
	var out joined
	_, err = d.plugin.ask(ctx, w, kindNetwork, "Join", join{a.Network.ID, a.Endpoint.ID, a.NSPath, portOptions(a.Publish)}, &out)
	if happened(err) {
		u.Push("join", func(ctx context.Context) error { return d.remove(ctx, w, "Leave", of(a)) })
	}
	if err != nil {
		return res, err
	}
	if res, err = d.seat(ctx, a, ep, out.joinedWords, &u); err != nil {
		return res, d.plugin.about(err)
	}
	if err := d.program(ctx, w, a, res, &u); err != nil {
		return res, err
	}
	d.inform(ctx, w, a, &res)
	return res, nil
}

func of(a network.Attachment) endpointID { return endpointID{a.Network.ID, a.Endpoint.ID} }

// created is an endpoint that the plugin knows, before it has joined.
type created struct {
	given
	answer *iface
}

func (d Driver) createEndpoint(ctx context.Context, w *patience, a network.Attachment, u *undo.Stack) (out created, err error) {
	sent := given{a.Endpoint.Addrs, a.Endpoint.MAC}
	var answered createdEndpoint
	err = d.askForEndpoint(ctx, w, a, createEndpoint{a.Network.ID, a.Endpoint.ID, sent.iface(), endpointOptions(a)}, &answered)
	if happened(err) {
		u.Push("create endpoint", func(ctx context.Context) error { return d.remove(ctx, w, "DeleteEndpoint", of(a)) })
	}
	if err != nil {
		return out, err
	}
	got, err := sent.endpoint(answered.Interface)
	return created{got, answered.Interface}, d.plugin.about(err)
}

// askForEndpoint asks again when a plugin refuses for what can be made good: it has the
// endpoint, since it was made before a crash, or it has not the network, since it was
// started after it was told of it. Else its first "no" stands.
func (d Driver) askForEndpoint(ctx context.Context, w *patience, a network.Attachment, arg createEndpoint, out *createdEndpoint) error {
	l, err := d.plugin.ask(ctx, w, kindNetwork, "CreateEndpoint", arg, out)
	if !refused(err) || !d.forgotten(ctx, w, a) && !d.toldAgain(ctx, w, a.Network, l) {
		return err
	}
	*out = createdEndpoint{}
	_, err = d.plugin.ask(ctx, w, kindNetwork, "CreateEndpoint", arg, out)
	return err
}

// forgotten has the plugin forget an endpoint, and reports whether it had it.
func (d Driver) forgotten(ctx context.Context, w *patience, a network.Attachment) bool {
	for _, method := range []string{"RevokeExternalConnectivity", "Leave"} {
		_ = d.remove(ctx, w, method, of(a)) // only the end counts
	}
	_, err := d.plugin.ask(ctx, w, kindNetwork, "DeleteEndpoint", of(a), &done{})
	return err == nil
}

// toldAgain tells the plugin of a network, unless it was told in this life, and reports
// whether that was news.
func (d Driver) toldAgain(ctx context.Context, w *patience, n network.Network, l *life) bool {
	if d.reg.knows(l, n.ID) {
		return false
	}
	if err := d.create(ctx, w, n); err != nil {
		d.reg.told(n.ID, l)
		return false
	}
	return true
}

// iface is what a plugin is sent: one address of each family.
func (g given) iface() (out iface) {
	for _, p := range g.addrs {
		switch {
		case p.Addr().Is4() && out.Address == "":
			out.Address = p.String()
		case p.Addr().Is6() && out.AddressIPv6 == "":
			out.AddressIPv6 = p.String()
		}
	}
	if g.mac != (netspec.MAC{}) {
		out.MacAddress = net.HardwareAddr(g.mac[:]).String()
	}
	return out
}

// seat moves the link that the plugin named into the container. It may have named none.
func (d Driver) seat(ctx context.Context, a network.Attachment, ep created, words joinedWords, u *undo.Stack) (network.Result, error) {
	ways, err := parseWays(words, ep.addrs)
	if err != nil {
		return network.Result{}, err
	}
	words.InterfaceName.DstPrefix = plain(words.InterfaceName.DstPrefix) // nobody checks it: Isle has named the link
	r := raw{Source: words.InterfaceName.SrcName, Endpoint: ep.answer, Join: words}
	if r.Source == "" {
		return network.Result{Raw: r.json()}, nil
	}
	at := seatOf(a, r.Source, ep.given)
	if r.Link, err = d.reg.cfg.Seats.Take(ctx, at); err != nil {
		return network.Result{}, err
	}
	u.Push("move link "+r.Source, func(ctx context.Context) error { return d.reg.cfg.Seats.Return(ctx, at, r.Link) })
	res := network.Result{Addrs: ep.addrs, Gateways: ways.gateways, Routes: ways.routes, MAC: r.Link.MAC, MTU: r.Link.MTU, Raw: r.json()}
	if r.Link.Host != "" {
		res.Links = []string{r.Link.Host}
	}
	return res, nil
}

func seatOf(a network.Attachment, source string, g given) netspec.Seat {
	return netspec.Seat{
		Source: source, NSPath: a.NSPath, Name: a.Endpoint.Interface, MAC: g.mac, Owner: a.Endpoint.ID, Addrs: g.addrs,
		IPv6: slices.ContainsFunc(g.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }),
	}
}

func (r raw) json() json.RawMessage {
	b, err := json.Marshal(r)
	if err != nil { // strings, numbers, and JSON that was read before
		panic(fmt.Sprintf("remote: %v", err))
	}
	return b
}

// program has the plugin open the way to and from the outside. Docker asks it for the
// endpoint that is a container's way out; here for each that has one, or ports.
func (d Driver) program(ctx context.Context, w *patience, a network.Attachment, res network.Result, u *undo.Stack) error {
	if a.Network.Internal || len(res.Gateways) == 0 && len(a.Publish) == 0 {
		return nil
	}
	_, err := d.plugin.ask(ctx, w, kindNetwork, "ProgramExternalConnectivity", program{a.Network.ID, a.Endpoint.ID, portOptions(a.Publish)}, &done{})
	if unknownMethod(err) {
		return nil
	}
	if happened(err) {
		u.Push("program external connectivity", func(ctx context.Context) error { return d.remove(ctx, w, "RevokeExternalConnectivity", of(a)) })
	}
	return err
}

// inform keeps what the plugin says of the endpoint, for inspect. It need not say
// anything.
func (d Driver) inform(ctx context.Context, w *patience, a network.Attachment, res *network.Result) {
	var out operInfo
	if _, err := d.plugin.ask(ctx, w, kindNetwork, "EndpointOperInfo", of(a), &out); err != nil || len(out.Value) == 0 {
		return
	}
	r := kept(*res)
	b, err := json.Marshal(out.Value)
	if err != nil || len(b) > mostInfo {
		return
	}
	info := json.RawMessage(b)
	r.Info = &info
	res.Raw = r.json()
}

// kept is what Attach kept of an endpoint; zero when there is nothing.
func kept(res network.Result) (r raw) {
	if json.Unmarshal(res.Raw, &r) != nil {
		return raw{}
	}
	return r
}

// Check implements network.External: the link is there, up, under its name. What the
// plugin holds of it cannot be asked for.
func (d Driver) Check(ctx context.Context, a network.Attachment) error {
	if a.Endpoint.Result == nil {
		return nil
	}
	r := kept(*a.Endpoint.Result)
	if r.Source == "" {
		return nil
	}
	return d.plugin.about(d.reg.cfg.Seats.Check(ctx, seatOf(a, r.Source, given{}), r.Link))
}

// Detach implements network.External. All is attempted, whatever fails before. What a
// plugin refuses on the way does not matter once it has deleted the endpoint.
func (d Driver) Detach(ctx context.Context, a network.Attachment) error {
	w := d.plugin.begin(true)
	revoke := d.remove(ctx, w, "RevokeExternalConnectivity", of(a))
	back := d.plugin.about(d.bringBack(ctx, a))
	leave := d.remove(ctx, w, "Leave", of(a))
	last := d.remove(ctx, w, "DeleteEndpoint", of(a))
	if last == nil {
		revoke, leave = unlessRefused(revoke), unlessRefused(leave)
	}
	return errors.Join(revoke, back, leave, last)
}

func unlessRefused(err error) error {
	if refused(err) {
		return nil
	}
	return err
}

// bringBack takes the link out of the container, so that the plugin finds it.
func (d Driver) bringBack(ctx context.Context, a network.Attachment) error {
	if a.NSPath == "" {
		return nil
	}
	r := raw{}
	if a.Endpoint.Result != nil {
		if r = kept(*a.Endpoint.Result); r.Source == "" {
			return nil
		}
	}
	return d.reg.cfg.Seats.Return(ctx, seatOf(a, r.Source, given{}), r.Link)
}
