package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/pki"
	"isle/internal/store/etcd"
)

// known is what this host has read of the others last. It is replaced, never changed.
type known struct {
	hosts   map[string]record
	removed map[string]record
}

func (s *session) learn(change func(*known)) {
	k := *s.known.Load()
	change(&k)
	s.known.Store(&k)
}

// refuse is of class PermissionDenied for hosts that were removed.
func (s *session) refuse(host string) error {
	if r, ok := s.known.Load().removed[host]; ok {
		return fmt.Errorf("host %s (%s) was removed from the cluster: %w", r.Name, host, errdefs.ErrPermissionDenied)
	}
	return nil
}

// followHosts keeps up with who is in the cluster, and so with where its memory is.
func (s *session) followHosts(ctx context.Context) error {
	return s.followRecords(ctx, "member/", func(all map[string]record) error {
		s.learn(func(k *known) { k.hosts = all })
		return s.moveTo(ctx, all)
	})
}

// moveTo turns the client to the members of now.
func (s *session) moveTo(ctx context.Context, all map[string]record) error {
	if s.self.External {
		return nil
	}
	var at []string
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if all[id].Member {
			at = append(at, all[id].client())
		}
	}
	if len(at) == 0 || slices.Equal(at, s.client.Endpoints()) {
		return nil
	}
	s.client.SetEndpoints(at...)
	return s.c.changeSelf(ctx, func(v *self) { v.Endpoints = at })
}

// followRemoved keeps up with who is not let in any more.
func (s *session) followRemoved(ctx context.Context) error {
	return s.followRecords(ctx, "removed/", func(all map[string]record) error {
		s.learn(func(k *known) { k.removed = all })
		if !s.self.Member {
			return nil
		}
		return s.writeRevoked(ctx, all)
	})
}

func (s *session) writeRevoked(ctx context.Context, all map[string]record) error {
	ca, err := s.authority(ctx)
	if err != nil {
		return err
	}
	var serials []string
	for _, r := range all {
		for _, c := range r.Certs {
			serials = append(serials, c.Serial)
		}
	}
	der, err := ca.Revoke(serials)
	if err != nil {
		return err
	}
	return pki.WriteFile(s.path(revokedFile), der)
}

// followRecords calls fn with all hosts below prefix whenever they change, until ctx
// ends. Records that cannot be read are left out.
func (s *session) followRecords(ctx context.Context, prefix string, fn func(map[string]record) error) error {
	all := map[string]record{}
	return s.store.Watch(ctx, prefix, 0, func(b etcd.Batch) error {
		if b.Reset {
			clear(all)
		} else if len(b.Events) == 0 {
			return nil
		}
		for _, e := range b.Events {
			s.takeRecord(all, e, prefix)
		}
		return fn(maps.Clone(all))
	})
}

func (s *session) takeRecord(all map[string]record, e etcd.Event, prefix string) {
	id := strings.TrimPrefix(e.Key, prefix)
	delete(all, id)
	if e.Gone {
		return
	}
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil || r.ID != id {
		s.log.Warn("a record of the cluster is ignored", "key", e.Key, "error", err)
		return
	}
	all[id] = r
}
