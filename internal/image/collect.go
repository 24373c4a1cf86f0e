package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
)

// resourceRootfs is our kind of thing in containerd's collection: the writable
// layer of a container. It is never collected; it only holds other things.
const resourceRootfs = metadata.ResourceMount + 1

// rootfsCollector tells the collector what containers stand on: the snapshots
// below their layers, and the content of their images, which commit needs.
// It reads the layers' own records, so nothing has to be kept in step.
type rootfsCollector struct{ s *Service }

var _ metadata.Collector = rootfsCollector{}

func (rootfsCollector) ReferenceLabel() string { return "isle.rootfs" }

// StartCollection must not fail: containerd would go on without us.
func (c rootfsCollector) StartCollection(context.Context) (metadata.CollectionContext, error) {
	return c.s.running, nil
}

// holdings are what the collection that is about to begin must leave alone.
// A record that cannot be parsed belongs to a container that cannot start.
func (s *Service) holdings(ctx context.Context) ([]gc.Node, error) {
	containers, err := s.Rootfses(ctx)
	if err != nil {
		return nil, err
	}
	var held []gc.Node
	for _, id := range containers {
		r, err := s.rootfs(id)
		switch {
		case errdefs.IsNotFound(err):
			continue
		case errdefs.IsDataLoss(err):
			s.log.Warn("writable layer is damaged", "container", id, "error", err)
			continue
		case err != nil:
			return nil, err
		}
		held = append(held, node(metadata.ResourceContent, r.Manifest.Digest.String()))
		if r.ChainID != "" {
			held = append(held, node(metadata.ResourceSnapshot, s.storage.name+"/"+r.ChainID.String()))
		}
		if !s.storage.overlay() {
			held = append(held, node(metadata.ResourceSnapshot, s.storage.name+"/"+nativeKey(id)))
		}
	}
	return held, nil
}

func node(t gc.ResourceType, key string) gc.Node {
	return gc.Node{Type: t, Namespace: namespace, Key: key}
}

// collection is one run of the collector: what it must leave alone, and what to
// call when nothing more will be condemned. Removing files goes on after that.
type collection struct {
	held []gc.Node
	done func()
}

func (collection) All(func(gc.Node)) {}

func (c collection) Active(ns string, fn func(gc.Node)) {
	if ns != namespace {
		return
	}
	for _, n := range c.held {
		fn(n)
	}
}

func (collection) Leased(string, string, func(gc.Node)) {}

func (collection) Remove(gc.Node) {}

func (c collection) Cancel() error {
	c.done()
	return nil
}

func (c collection) Finish() error {
	c.done()
	return nil
}
