package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/api"
	"isle/internal/container"
	"isle/internal/network"
	"isle/internal/network/publish"
)

// AnnotationPublish has the ports that Docker's PortBindings have no place for:
// those of an interface, and those with an allow-list. They are written as on
// the command line and separated by blanks or newlines, so that any client of
// Docker can set them.
const AnnotationPublish = "isle.publish"

// ContainerPublish publishes more ports of a container: of one that runs at once,
// of another at its next start.
func (e *Engine) ContainerPublish(ctx context.Context, ref string, req api.PublishRequest) (api.PortsResponse, error) {
	specs, err := parsePorts(req.Ports, publish.ParseSpec)
	if err != nil {
		return api.PortsResponse{}, err
	}
	return e.changePorts(ctx, ref, portEdit{
		live: func(id string) (network.Ports, error) {
			want := network.PortRequest{Specs: specs}
			if req.Replace {
				return e.Networks.Replace(ctx, id, want)
			}
			return e.Networks.Publish(ctx, id, want)
		},
		add: specs, replace: req.Replace,
	})
}

// ContainerUnpublish takes published ports back.
func (e *Engine) ContainerUnpublish(ctx context.Context, ref string, req api.UnpublishRequest) (api.PortsResponse, error) {
	which, err := parsePorts(req.Ports, publish.ParseSelector)
	if err != nil {
		return api.PortsResponse{}, err
	}
	return e.changePorts(ctx, ref, portEdit{
		live:   func(id string) (network.Ports, error) { return e.Networks.Unpublish(ctx, id, which) },
		remove: which,
	})
}

func parsePorts[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	if len(texts) == 0 {
		return nil, invalid("no port was named")
	}
	var out []T
	for _, s := range texts {
		p, err := parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// portEdit is a change of ports in both its forms: of a namespace that is there,
// and of a record.
type portEdit struct {
	live    func(id string) (network.Ports, error)
	add     []publish.Spec
	remove  []publish.Selector
	replace bool
}

func (e *Engine) changePorts(ctx context.Context, ref string, edit portEdit) (api.PortsResponse, error) {
	c, err := e.find(ref)
	if err != nil {
		return api.PortsResponse{}, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	ctx = context.WithoutCancel(ctx)
	if err := c.settled(ctx); err != nil { // the namespace of its last run may be about to go
		return api.PortsResponse{}, err
	}
	rec := c.snapshot()
	if err := mayPublish(rec); err != nil {
		return api.PortsResponse{}, err
	}
	if !e.isOpen(rec) {
		return e.editPorts(ctx, c, edit)
	}
	ports, err := edit.live(rec.ID)
	if err != nil {
		return api.PortsResponse{}, err
	}
	return e.portsResponse(rec, ports), e.portsChanged(ctx, c, ports)
}

// isOpen reports whether the container's namespace is there, which may be also
// when it does not run: see netns.go.
func (e *Engine) isOpen(rec container.Record) bool {
	_, _, err := e.Networks.Published(rec.ID)
	return err == nil && ownSandbox(rec)
}

// mayPublish says why ports of a container can not be published.
func mayPublish(rec container.Record) error {
	switch mode := rec.Host.NetworkMode; {
	case rec.State.Status == apitypes.StateRemoving || rec.State.Status == apitypes.StateDead:
		return conflict("container is marked for removal and its ports cannot be changed")
	case mode.IsContainer():
		return invalid("container %s shares the network of container %s; hint: publish the port on that one", rec.Name, mode.ConnectedContainer())
	case mode.IsHost():
		return invalid("container %s is on the host's network: what it binds is a port of the host already", rec.Name)
	case isPath(mode):
		return invalid("container %s is in a network namespace that is not Isle's: nothing can be published there", rec.Name)
	case rec.Config.NetworkDisabled, onlyNone(rec):
		return invalid("container %s is on no network: there is nothing to publish from; hint: isle network connect NETWORK %s", rec.Name, rec.Name)
	}
	return nil
}

func onlyNone(rec container.Record) bool {
	_, none := rec.Networks["none"]
	return none && len(rec.Networks) == 1
}

// editPorts changes the ports of a container that does not run.
func (e *Engine) editPorts(ctx context.Context, c *entry, edit portEdit) (api.PortsResponse, error) {
	rec := c.snapshot()
	if edit.replace {
		return api.PortsResponse{}, conflict("container %s does not run, so no port can be moved to it; hint: start it first, or leave out --replace", rec.Name)
	}
	before := asked(rec)
	after, missing := before.Edit(edit.add, edit.remove)
	if len(missing) > 0 {
		return api.PortsResponse{}, missing[0].Missing(rec.Name, before.Fixed())
	}
	if err := after.Check(rec.Name); err != nil { // it could never start again
		return api.PortsResponse{}, err
	}
	out := api.PortsResponse{Added: []api.Port{}, Removed: []api.Port{}, Warnings: []string{}, AtNextStart: true}
	for _, s := range edit.add {
		out.Added = append(out.Added, apiPort(rec.Name, publish.Mapping(s)))
	}
	for _, s := range edit.remove {
		for _, m := range s.Select(before.Fixed()) {
			out.Removed = append(out.Removed, apiPort(rec.Name, m))
		}
	}
	return out, e.update(ctx, c, func(rec *container.Record) error { rec.Host = withPorts(*rec, after); return nil })
}

// portsChanged writes into the records what became of the ports: of the
// container, and of those that lost some to it. When it cannot be written the
// ports become again what the records say.
func (e *Engine) portsChanged(ctx context.Context, c *entry, ports network.Ports) error {
	before := []container.Record{c.snapshot()}
	err := e.recordPorts(ctx, c, ports.Removed)
	for _, id := range slices.Sorted(maps.Keys(ports.Lost)) {
		loser, ferr := e.find(id)
		if ferr != nil {
			continue
		}
		before = append(before, loser.snapshot())
		if err == nil {
			err = e.recordLost(ctx, loser, ports.Lost[id])
		}
	}
	if err == nil {
		return nil
	}
	for _, rec := range before {
		_, serr := e.Networks.SetPorts(ctx, rec.ID, portRequest(rec))
		err = errors.Join(err, serr)
	}
	return err
}

// recordPorts makes a record say what the sandbox has. It is read while the
// record is held: two changes may come at once, by the container itself and by
// one that takes a port over.
func (e *Engine) recordPorts(ctx context.Context, c *entry, removed []network.Publish) error {
	return e.update(ctx, c, func(rec *container.Record) error { return e.adoptPorts(rec, removed) })
}

// adoptPorts is recordPorts of a record that is held.
func (e *Engine) adoptPorts(rec *container.Record, removed []network.Publish) error {
	settled, shown, err := e.Networks.Published(rec.ID)
	if err != nil {
		return err
	}
	rec.Host = withPorts(*rec, asked(*rec).Follow(mappingsOf(settled), mappingsOf(removed)))
	if rec.Ports = shown; !rec.State.Alive() {
		rec.Ports = nil
	}
	return nil
}

// recordLost makes a record say that another container has taken ports over. Its
// own may have ended meanwhile: then there is only the record.
func (e *Engine) recordLost(ctx context.Context, c *entry, lost []network.Publish) error {
	return e.update(ctx, c, func(rec *container.Record) error {
		if e.isOpen(*rec) {
			return e.adoptPorts(rec, lost)
		}
		left, err := asked(*rec).Lose(mappingsOf(lost))
		if err == nil {
			rec.Host = withPorts(*rec, left)
		}
		return err
	})
}

// followPorts makes up for a change of ports whose record was lost: the sandbox
// is changed first.
func (e *Engine) followPorts(ctx context.Context, c *entry) error {
	c.inMemory(e.showPorts)
	rec := c.snapshot()
	settled, _, err := e.Networks.Published(rec.ID)
	if err != nil || !ownSandbox(rec) || samePorts(rec.Host, withPorts(rec, asked(rec).Follow(mappingsOf(settled), nil))) {
		return nil
	}
	return e.recordPorts(ctx, c, nil)
}

func samePorts(a, b *apitypes.HostConfig) bool {
	return a.PublishAllPorts == b.PublishAllPorts && a.Annotations[AnnotationPublish] == b.Annotations[AnnotationPublish] &&
		maps.EqualFunc(a.PortBindings, b.PortBindings, func(a, b []networktypes.PortBinding) bool { return slices.Equal(a, b) })
}

// showPorts brings the ports that "port" and "ps" show in step with the networks
// that the container is on.
func (e *Engine) showPorts(rec *container.Record) {
	if _, shown, err := e.Networks.Published(rec.ID); err == nil && rec.State.Alive() {
		rec.Ports = shown
	}
}

// asked is what of a container is to be published: PortBindings, with
// --publish-all every exposed port on one of our choice, and the annotation. It
// was checked when it was made.
func asked(rec container.Record) publish.Asked {
	a := publish.Asked{Bindings: bindings(rec)}
	a.Specs, _ = publish.ParseSpecs(rec.Host.Annotations[AnnotationPublish])
	return a
}

func portRequest(rec container.Record) network.PortRequest {
	a := asked(rec)
	return network.PortRequest{Bindings: a.Bindings, Specs: a.Specs}
}

// withPorts is the container's configuration with other ports.
func withPorts(rec container.Record, a publish.Asked) *apitypes.HostConfig {
	h := *rec.Host
	h.PortBindings = a.Bindings
	if h.PublishAllPorts = h.PublishAllPorts && exposesAll(rec, a.Bindings); h.PublishAllPorts {
		for p := range rec.Config.ExposedPorts {
			if len(rec.Host.PortBindings[p]) == 0 {
				delete(h.PortBindings, p)
			}
		}
	}
	var specs []string
	for _, s := range a.Specs {
		specs = append(specs, s.String())
	}
	h.Annotations = maps.Clone(h.Annotations)
	if delete(h.Annotations, AnnotationPublish); len(specs) > 0 {
		if h.Annotations == nil {
			h.Annotations = map[string]string{}
		}
		h.Annotations[AnnotationPublish] = strings.Join(specs, "\n")
	}
	return &h
}

// exposesAll reports whether every exposed port is still published as
// --publish-all would.
func exposesAll(rec container.Record, bs networktypes.PortMap) bool {
	for p := range rec.Config.ExposedPorts {
		if len(rec.Host.PortBindings[p]) == 0 && !slices.Equal(bs[p], []networktypes.PortBinding{{}}) {
			return false
		}
	}
	return true
}

// checkPublish reads the annotation.
func checkPublish(_ apitypes.Config, h apitypes.HostConfig) error {
	specs, err := publish.ParseSpecs(h.Annotations[AnnotationPublish])
	switch {
	case err != nil:
		return invalid("annotation %s: %s", AnnotationPublish, trimClass(err))
	case len(specs) == 0:
		return nil
	case h.NetworkMode.IsContainer():
		return invalid("conflicting options: port publishing and the container type network mode")
	case h.NetworkMode.IsNone():
		return invalid("conflicting options: port publishing and the network mode none: there is nothing to publish from. Hint: choose another --network")
	}
	return nil
}

// portWarnings say of a container that is made what "publish" says of one that runs.
func (e *Engine) portWarnings(rec container.Record) []string {
	a := asked(rec)
	if len(a.Bindings)+len(a.Specs) == 0 || len(rec.Networks) == 0 || mayPublish(rec) != nil {
		return nil
	}
	return e.Networks.PortWarnings(slices.Sorted(maps.Keys(rec.Networks)))
}

func (e *Engine) portsResponse(rec container.Record, ports network.Ports) api.PortsResponse {
	out := api.PortsResponse{Added: []api.Port{}, Removed: []api.Port{}, Warnings: append([]string{}, ports.Warnings...)}
	for _, p := range ports.Added {
		out.Added = append(out.Added, apiPort(rec.Name, publish.Mapping(p)))
	}
	for _, p := range ports.Removed {
		out.Removed = append(out.Removed, apiPort(rec.Name, publish.Mapping(p)))
	}
	for id, ps := range ports.Lost {
		for _, p := range ps {
			out.Removed = append(out.Removed, apiPort(e.nameOf(id), publish.Mapping(p)))
		}
	}
	return out
}

func (e *Engine) nameOf(id string) string {
	if c, err := e.find(id); err == nil {
		return c.snapshot().Name
	}
	return id
}

func apiPort(name string, m publish.Mapping) api.Port {
	p := api.Port{Container: name, Proto: m.Proto, Interface: m.Iface, HostPort: m.HostPort, Count: m.Count, ContainerPort: m.ContainerPort, From: m.From}
	if m.HostIP.IsValid() {
		p.Address = m.HostIP.String()
	}
	return p
}

func mappingsOf(ps []network.Publish) []publish.Mapping {
	out := make([]publish.Mapping, len(ps))
	for i, p := range ps {
		out[i] = publish.Mapping(p)
	}
	return out
}
