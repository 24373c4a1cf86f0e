package engine

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/filters"
)

// listFilters are the keys that "ps" knows.
var listFilters = []string{"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name", "network", "publish", "since", "status", "volume"}

// ContainerList lists containers, the newest first.
func (e *Engine) ContainerList(ctx context.Context, opts container.ListOptions) ([]apitypes.Summary, error) {
	s, err := e.selection(ctx, opts)
	if err != nil {
		return nil, err
	}
	var recs []container.Record
	for _, c := range e.all() {
		if rec := c.snapshot(); s.picks(rec) {
			recs = append(recs, rec)
		}
	}
	slices.SortFunc(recs, func(a, b container.Record) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	if opts.Limit > 0 && len(recs) > opts.Limit {
		recs = recs[:opts.Limit]
	}
	out := make([]apitypes.Summary, 0, len(recs))
	for _, rec := range recs {
		sum := summary(rec, time.Now())
		if opts.Size {
			if sum.SizeRw, sum.SizeRootFs, err = e.Images.RootfsUsage(ctx, rec.ID); err != nil {
				return nil, about(rec, "size of", err)
			}
		}
		out = append(out, sum)
	}
	return out, nil
}

// selection is what a list is asked for, with references resolved.
type selection struct {
	f             filters.Args
	all           bool
	before, since time.Time
	exited        []int
	ancestors     []string // image ids
	networks      []string // network ids
	ports         map[string][]networktypes.PortRange
}

func (e *Engine) selection(ctx context.Context, opts container.ListOptions) (selection, error) {
	f := opts.Filters
	s := selection{f: f, ports: map[string][]networktypes.PortRange{}}
	if err := f.Validate(listFilters...); err != nil {
		return s, err
	}
	s.all = opts.All || opts.Limit > 0 || f.Has("status") || f.Has("exited") || f.Has("before") || f.Has("since")
	for _, v := range f.Get("status") {
		if err := apitypes.ValidateContainerState(apitypes.ContainerState(v)); err != nil {
			return s, invalid("invalid filter 'status=%s'", v)
		}
	}
	for _, v := range f.Get("health") {
		if err := apitypes.ValidateHealthStatus(apitypes.HealthStatus(v)); err != nil {
			return s, invalid("invalid filter 'health=%s'", v)
		}
	}
	for _, v := range f.Get("exited") {
		code, err := strconv.Atoi(v)
		if err != nil {
			return s, invalid("invalid filter 'exited=%s'", v)
		}
		s.exited = append(s.exited, code)
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range f.Get(key) {
			r, err := networktypes.ParsePortRange(v)
			if err != nil {
				return s, invalid("invalid filter '%s=%s'", key, v)
			}
			s.ports[key] = append(s.ports[key], r)
		}
	}
	if err := e.resolveTimes(f, &s); err != nil {
		return s, err
	}
	for _, ref := range f.Get("ancestor") {
		if img, err := e.Images.Resolve(ctx, ref, nil); err == nil {
			s.ancestors = append(s.ancestors, img.ID)
		}
	}
	for _, ref := range f.Get("network") {
		if n, err := e.Networks.Find(ctx, ref); err == nil {
			s.networks = append(s.networks, n.ID)
		}
	}
	return s, nil
}

// resolveTimes: before and since name containers.
func (e *Engine) resolveTimes(f filters.Args, s *selection) error {
	for _, k := range []struct {
		key string
		to  *time.Time
	}{{"before", &s.before}, {"since", &s.since}} {
		for _, ref := range f.Get(k.key) {
			c, err := e.find(ref)
			if err != nil {
				return err
			}
			*k.to = c.snapshot().Created
		}
	}
	return nil
}

func (s selection) picks(rec container.Record) bool {
	f := s.f
	switch {
	case !s.all && !rec.State.Alive() && rec.State.Status != apitypes.StateRestarting:
	case !f.Exact("status", string(rec.State.Status)):
	case !f.Exact("health", string(healthSummary(rec).Status)):
	case !f.Labels("label", rec.Config.Labels):
	case !f.Prefix("id", rec.ID):
	case !nameMatches(f, rec.Name):
	case !s.before.IsZero() && !rec.Created.Before(s.before):
	case !s.since.IsZero() && !rec.Created.After(s.since):
	case f.Has("exited") && !(rec.State.Status == apitypes.StateExited && slices.Contains(s.exited, rec.State.ExitCode)):
	case f.Has("ancestor") && !slices.Contains(s.ancestors, rec.ImageID) && !slices.Contains(f.Get("ancestor"), rec.Image):
	case f.Has("network") && !s.onNetwork(rec):
	case f.Has("volume") && !slices.ContainsFunc(f.Get("volume"), func(v string) bool { return mounts(rec, v) }):
	case f.Has("publish") && !s.portMatches("publish", published(rec)):
	case f.Has("expose") && !s.portMatches("expose", exposed(rec)):
	case f.Has("is-task") && slices.Contains(f.Get("is-task"), "true"):
	case f.Has("isolation") && !f.Exact("isolation", string(rec.Host.Isolation)):
	default:
		return true
	}
	return false
}

// nameMatches: a name is matched with and without its slash.
func nameMatches(f filters.Args, name string) bool {
	return f.Regexp("name", name) || f.Regexp("name", "/"+name)
}

func (s selection) onNetwork(rec container.Record) bool {
	for name, ep := range rec.Networks {
		if slices.Contains(s.f.Get("network"), name) || ep != nil && slices.Contains(s.networks, ep.NetworkID) {
			return true
		}
	}
	return false
}

func mounts(rec container.Record, v string) bool {
	return slices.ContainsFunc(rec.Mounts, func(m container.Mount) bool {
		return m.Name == v && v != "" || m.Destination == v || m.Type == mount.TypeBind && m.Source == v
	})
}

func published(rec container.Record) []networktypes.Port {
	var out []networktypes.Port
	for p, bs := range rec.Ports {
		for _, b := range bs {
			if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
				if hp, ok := networktypes.PortFrom(uint16(n), p.Proto()); ok {
					out = append(out, hp)
				}
			}
		}
	}
	return out
}

func exposed(rec container.Record) []networktypes.Port {
	var out []networktypes.Port
	for p := range rec.Config.ExposedPorts {
		out = append(out, p)
	}
	for p := range rec.Ports {
		out = append(out, p)
	}
	return out
}

func (s selection) portMatches(key string, ports []networktypes.Port) bool {
	for _, r := range s.ports[key] {
		for _, p := range ports {
			if p.Proto() == r.Proto() && r.Start() <= p.Num() && p.Num() <= r.End() {
				return true
			}
		}
	}
	return false
}

// summary is a container as "ps" shows it.
func summary(rec container.Record, now time.Time) apitypes.Summary {
	s := apitypes.Summary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, Image: rec.Image, ImageID: rec.ImageID, ImageManifestDescriptor: rec.Manifest,
		Command: commandText(append([]string{rec.Path}, rec.Args...)), Created: rec.Created.Unix(), Ports: portSummaries(rec),
		Labels: rec.Config.Labels, State: rec.State.Status, Status: statusText(rec.State, now), Health: healthSummary(rec),
		NetworkSettings: &apitypes.NetworkSettingsSummary{Networks: rec.Networks}, Mounts: mountPoints(rec),
	}
	s.HostConfig.NetworkMode, s.HostConfig.Annotations = string(rec.Host.NetworkMode), rec.Host.Annotations
	return s
}

func healthSummary(rec container.Record) *apitypes.HealthSummary {
	if h := rec.State.Health; h != nil {
		return &apitypes.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	return &apitypes.HealthSummary{Status: apitypes.NoHealthcheck}
}

// statusText is Docker's "Up 5 minutes (healthy)".
func statusText(s container.State, now time.Time) string {
	up := "Up " + units.HumanDuration(now.Sub(s.StartedAt))
	switch s.Status {
	case apitypes.StatePaused:
		return up + " (Paused)"
	case apitypes.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	case apitypes.StateRunning:
		if s.Health == nil {
			return up
		}
		text := string(s.Health.Status)
		if s.Health.Status == apitypes.Starting {
			text = "health: starting"
		}
		return up + " (" + text + ")"
	case apitypes.StateRemoving:
		return "Removal In Progress"
	case apitypes.StateDead:
		return "Dead"
	case apitypes.StateCreated:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
}

// portSummaries are the ports, exposed ones that are not published too, in a
// stable order.
func portSummaries(rec container.Record) []apitypes.PortSummary {
	out := []apitypes.PortSummary{}
	if !rec.State.Alive() {
		return out
	}
	for p, bs := range portsOf(rec) {
		if len(bs) == 0 {
			out = append(out, apitypes.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bs {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue // routed: no port of the host
			}
			out = append(out, apitypes.PortSummary{IP: orAny(b.HostIP), PrivatePort: p.Num(), PublicPort: uint16(n), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b apitypes.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort), strings.Compare(a.Type, b.Type))
	})
	return out
}

func orAny(a netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return netip.IPv4Unspecified()
}

// portsOf is NetworkSettings.Ports: null for what is exposed and not published.
// Off every network a container has none.
func portsOf(rec container.Record) networktypes.PortMap {
	out := networktypes.PortMap{}
	if !rec.State.Alive() {
		return out
	}
	if ownSandbox(rec) && !rec.Config.NetworkDisabled && len(rec.Networks) > 0 && !onlyNone(rec) {
		for p := range rec.Config.ExposedPorts {
			out[p] = nil
		}
	}
	for p, bs := range rec.Ports {
		out[p] = bs
	}
	return out
}

func mountPoints(rec container.Record) []apitypes.MountPoint {
	out := []apitypes.MountPoint{}
	for _, m := range rec.Mounts {
		out = append(out, m.MountPoint)
	}
	return out
}

// untilFilter is the moment before which something must have been made; zero
// when nothing is said. A duration counts back from now.
func untilFilter(f filters.Args) (time.Time, error) {
	terms := f.Get("until")
	switch len(terms) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, invalid("more than one until filter specified")
	}
	s := terms[0]
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	if sec, frac, _ := strings.Cut(s, "."); sec != "" {
		if n, err := strconv.ParseInt(sec, 10, 64); err == nil {
			ns, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
			return time.Unix(n, ns), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid filter 'until=%s'", s)
}
