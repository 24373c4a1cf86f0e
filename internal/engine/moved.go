package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"

	"isle/internal/container"
	"isle/internal/network"
)

// Moved follows an endpoint whose LAN gave it other addresses than before: in the
// container's record, and in its hosts file.
func (e *Engine) Moved(ctx context.Context, now network.Endpoint, before []netip.Prefix) {
	c, err := e.find(now.Sandbox)
	if err != nil {
		return // it is gone by now
	}
	n, err := e.Networks.Find(ctx, now.Network)
	if err == nil {
		err = e.update(ctx, c, func(rec *container.Record) error {
			if s := rec.Networks[n.Name]; s != nil && s.EndpointID == now.ID {
				rec.Networks = maps.Clone(rec.Networks)
				rec.Networks[n.Name] = settings(s, n, now)
			}
			return nil
		})
	}
	err = errors.Join(err, e.moveInHosts(c.snapshot(), now.Addrs, before))
	if err != nil {
		e.Log.Error("follow a change of a container's addresses", "container", now.ContainerName, "error", err)
	}
}

// moveInHosts puts the addresses of now where those of before are. The file stays the
// same one: it is mounted in the container.
func (e *Engine) moveInHosts(rec container.Record, now, before []netip.Prefix) error {
	path := e.hostsPath(rec.ID)
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hosts file of container %s: %w", rec.Name, err)
	}
	b := withoutAddrs(old, before)
	for _, p := range now {
		b = fmt.Appendf(b, "%s\t%s\n", p.Addr(), hostNames(rec))
	}
	return os.WriteFile(path, b, 0o644)
}

// withoutAddrs are the lines that are about none of the addresses.
func withoutAddrs(hosts []byte, addrs []netip.Prefix) (out []byte) {
	for line := range bytes.Lines(hosts) {
		f := bytes.Fields(line)
		about := false
		for _, p := range addrs {
			about = about || len(f) > 0 && string(f[0]) == p.Addr().String()
		}
		if !about {
			out = append(out, line...)
		}
	}
	return out
}
