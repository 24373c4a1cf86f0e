package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Batch is what was changed at once. With Reset it is all that there is: what is not in
// it is gone. Without events it says that nothing was changed up to Revision.
type Batch struct {
	Reset    bool
	Revision int64
	Events   []Event
}

// Event is a record that was written, or one that is gone.
type Event struct {
	Key      string
	Value    []byte
	Gone     bool
	Revision int64 // at which it was written
	Lease    int64 // that it goes with; 0: none
}

// Watch calls fn with what is below prefix and changes after revision from, in order,
// until ctx ends, fn fails or there is no quorum any more. It begins with a Reset when
// from is 0, and when what came after from is not kept any more.
func (s Store) Watch(ctx context.Context, prefix string, from int64, fn func(Batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch of the client
	for {
		if from == 0 {
			b, err := s.everything(ctx, prefix)
			if err != nil {
				return err
			}
			if err := fn(b); err != nil {
				return err
			}
			from = b.Revision
		}
		if err := s.follow(ctx, prefix, from, fn); !errors.Is(err, errCompacted) {
			return err
		}
		from = 0
	}
}

// everything is a Reset.
func (s Store) everything(ctx context.Context, prefix string) (Batch, error) {
	for {
		kvs, rev, err := s.all(ctx, prefix, 0)
		if errors.Is(err, errCompacted) {
			continue
		}
		b := Batch{Reset: true, Revision: rev}
		for _, kv := range kvs {
			b.Events = append(b.Events, s.event(kv, false))
		}
		return b, err
	}
}

// all reads what is below prefix, as it is at rev, or now when rev is 0.
func (s Store) all(ctx context.Context, prefix string, rev int64) (kvs []*mvccpb.KeyValue, _ int64, _ error) {
	from, end := s.Prefix+prefix, clientv3.GetPrefixRangeEnd(s.Prefix+prefix)
	for {
		resp, err := s.page(ctx, from, end, rev)
		if err != nil {
			return nil, 0, classify(ctx, err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More {
			return kvs, rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (s Store) page(ctx context.Context, from, end string, rev int64) (*clientv3.GetResponse, error) {
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend)}
	if rev != 0 {
		opts = append(opts, clientv3.WithRev(rev), clientv3.WithSerializable())
	}
	return s.Client.Get(ctx, from, opts...)
}

// follow is Watch from a revision that is still kept.
func (s Store) follow(ctx context.Context, prefix string, from int64, fn func(Batch) error) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range s.Client.Watch(ctx, s.Prefix+prefix, clientv3.WithPrefix(), clientv3.WithRev(from+1)) {
		if err := resp.Err(); err != nil {
			return classify(ctx, err)
		}
		if len(resp.Events) == 0 && !resp.IsProgressNotify() {
			continue
		}
		b := Batch{Revision: resp.Header.Revision}
		for _, e := range resp.Events {
			b.Events = append(b.Events, s.event(e.Kv, e.Type == clientv3.EventTypeDelete))
			b.Revision = e.Kv.ModRevision // the header's may be of what is still to come
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return classify(ctx, fmt.Errorf("the watch ended: %w", context.Cause(ctx)))
}

// Progress has all watches told how far they are: each gets a batch without events.
func (s Store) Progress(ctx context.Context) error {
	return s.Client.RequestProgress(clientv3.WithRequireLeader(ctx))
}

func (s Store) event(kv *mvccpb.KeyValue, gone bool) Event {
	return Event{Key: strings.TrimPrefix(string(kv.Key), s.Prefix), Value: kv.Value, Gone: gone, Revision: kv.ModRevision, Lease: kv.Lease}
}
