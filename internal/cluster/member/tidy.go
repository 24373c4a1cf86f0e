package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// etcd never makes its file smaller, and when that is as large as it may be takes no
// change any more, even when most of it is empty: until somebody drops what is old, writes
// the file anew and says that all is well. Tidy is that somebody, for its own member.

const (
	tidyEvery = 30 * time.Second
	quota     = 2 << 30 // bytes: etcd's own
)

// Tidy sees to it, until ctx ends, that the member's file does not fill up with nothing.
func (m *Member) Tidy(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.Done():
			return
		case <-time.After(tidyEvery):
		}
		if err := m.tidy(ctx); err != nil && ctx.Err() == nil {
			log.Warn("make room in the cluster's memory", "error", err)
		}
	}
}

func (m *Member) tidy(ctx context.Context) error {
	b := m.etcd.Server.Backend()
	full := m.full()
	if !full && (b.Size() < m.quota/2 || b.SizeInUse() > b.Size()/2) {
		return nil
	}
	if full {
		if err := m.compact(ctx); err != nil {
			return err
		}
	}
	if err := b.Defrag(); err != nil {
		return fmt.Errorf("write the database anew: %w", err)
	}
	if !full || b.Size() > m.quota*9/10 {
		return nil
	}
	_, err := m.etcd.Server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: m.ID(), Alarm: pb.AlarmType_NOSPACE})
	return err
}

// full: this member has said that it has no room.
func (m *Member) full() bool {
	for _, a := range m.etcd.Server.Alarms() {
		if a.MemberID == m.ID() && a.Alarm == pb.AlarmType_NOSPACE {
			return true
		}
	}
	return false
}

// compact drops all that is not as things are now. Who follows and is behind reads
// everything again.
func (m *Member) compact(ctx context.Context) error {
	_, err := m.etcd.Server.Compact(ctx, &pb.CompactionRequest{Revision: m.etcd.Server.KV().Rev(), Physical: true})
	if errors.Is(err, mvcc.ErrCompacted) { // another member was here
		return nil
	}
	return err
}
