package network_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/doctor"
	"isle/internal/network/exposure"
	"isle/internal/reconcile"
)

// TestDirect: another host is worth a try while it is near and shares a direct network,
// and the tunnel is left out for those that were reached.
func TestDirect(t *testing.T) {
	_, all := gather(t, 3)
	a := all[0]
	for name, opts := range map[string]map[string]string{"app": {"isle.direct": "true"}, "plain": nil} {
		create(t, a.m, api.CreateRequest{Name: name, Driver: "overlay", Options: opts})
	}
	hear(t, all)
	for _, h := range all {
		for _, n := range []string{"app", "plain"} {
			if h.id != "c" || n == "plain" {
				_, err := h.m.Open(t.Context(), request(h.id+n, nil, n))
				must(t, err)
			}
		}
	}
	hear(t, all)
	a.is(t, "", nil, "tunnel")
	a.look(t, "192.0.2.2", "192.0.2.3")
	a.is(t, "b", nil, "tunnel")
	a.tell(t, "c", true) // it has no container on the direct network
	a.is(t, "b", nil, "tunnel")
	a.tell(t, "b", true)
	a.is(t, "b", []string{"b"}, "direct")
	a.begin(t)
	hear(t, all)
	a.is(t, "b", []string{"b"}, "direct")
	a.look(t)
	a.is(t, "", nil, "tunnel")
	a.look(t, "192.0.2.2")
	a.is(t, "b", []string{"b"}, "direct")
	a.tell(t, "b", false)
	a.is(t, "b", nil, "tunnel")
	must(t, a.m.Close(t.Context(), "aapp"))
	a.is(t, "", nil, "")
	rightAll(t, all)
}

// TestDirectBarred: where what is forwarded would be dropped no other host is tried, and
// so none gets an answer.
func TestDirectBarred(t *testing.T) {
	_, all := gather(t, 2)
	a := all[0]
	create(t, a.m, api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"isle.direct": "true"}})
	hear(t, all)
	for _, h := range all {
		_, err := h.m.Open(t.Context(), request(h.id+"app", nil, "app"))
		must(t, err)
	}
	hear(t, all)
	a.look(t, "192.0.2.2")
	for _, forwards := range []bool{false, true} {
		a.begin(t)
		hear(t, all)
		a.m.Surroundings = func(context.Context) (doctor.Host, error) {
			return doctor.Host{Host: exposure.Host{Forward4: forwards}}, nil
		}
		if n := len(a.m.Errand(t.Context()).Targets); n > 0 != forwards {
			t.Errorf("it forwards: %t; %d hosts are tried", forwards, n)
		}
	}
}

// look has the host see which others are near.
func (h *member) look(t *testing.T, near ...string) {
	t.Helper()
	h.machine.near = map[netip.Addr]bool{}
	for _, a := range near {
		h.machine.near[addr(a)] = true
	}
	must(t, h.m.Repair(t.Context(), reconcile.Alarm{Scope: reconcile.Scope{Facts: true}}))
}

// is checks which host is tried, to which a way leads past the tunnel, and what is said
// of host b.
func (h *member) is(t *testing.T, tried string, past []string, way string) {
	t.Helper()
	var targets, ways []string
	for _, o := range h.m.Errand(t.Context()).Targets {
		targets = append(targets, o.Host)
	}
	for _, o := range of[netspec.Shortcut](h) {
		for id, e := range h.dir.View().Endpoints {
			if e.Addrs[0].Addr() == o.Addr {
				ways = append(ways, h.dir.View().Endpoints[id].Host)
			}
		}
	}
	s, err := h.m.Span(t.Context(), "app")
	must(t, err)
	i := slices.IndexFunc(s.Hosts, func(o network.SpanHost) bool { return o.ID == "b" })
	if tried == "" && len(targets) > 0 || tried != "" && !slices.Equal(targets, []string{tried}) || !slices.Equal(ways, past) || s.Hosts[i].Way != way {
		t.Errorf("tried are %v, past the tunnel to %v, %s", targets, ways, s.Hosts[i].Way)
	}
}
