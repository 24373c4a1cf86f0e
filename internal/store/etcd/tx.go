package etcd

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/store"
)

// page is how many records are read with one request.
const page = 10000

// tx is one try of a transaction. It keeps the first error of a read: what fn makes of
// a record that could not be read does not count.
type tx struct {
	ctx     context.Context
	s       Store
	rev     int64             // that is read; 0 before the first read
	read    map[string]int64  // revision of each key that was read; 0: it was not there
	values  map[string][]byte // of those that were there
	scanned []string          // prefixes
	writes  map[string][]byte // nil: to be deleted
	err     error
}

func (t *tx) call(fn func(store.Tx) error) error {
	err := fn(t)
	if t.err != nil {
		return t.err
	}
	return err
}

// Prefetch reads keys that a transaction is going to ask for in one request. In stores
// that need no such thing it does nothing.
func Prefetch(tr store.Tx, keys ...string) {
	if t, ok := tr.(*tx); ok {
		t.fetch(keys)
	}
}

func (t *tx) fetch(keys []string) {
	if t.err != nil {
		return
	}
	var ops []clientv3.Op
	for _, k := range keys {
		ops = append(ops, clientv3.OpGet(t.s.Prefix+k, t.at()...))
	}
	ctx, cancel := context.WithTimeout(t.ctx, perRequest)
	defer cancel()
	resp, err := t.s.Client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		t.err = classify(t.ctx, err)
		return
	}
	t.keepRevision(resp.Header.Revision)
	for i, r := range resp.Responses {
		t.read[keys[i]] = 0
		for _, kv := range r.GetResponseRange().Kvs {
			t.read[keys[i]], t.values[keys[i]] = kv.ModRevision, kv.Value
		}
	}
}

// at is what is read: at first what is there now, of which the members assure each other;
// then that revision, which any of them knows by itself.
func (t *tx) at() []clientv3.OpOption {
	if t.rev == 0 {
		return nil
	}
	return []clientv3.OpOption{clientv3.WithRev(t.rev), clientv3.WithSerializable()}
}

func (t *tx) keepRevision(rev int64) {
	if t.rev == 0 {
		t.rev = rev
	}
}

// Get implements store.Tx.
func (t *tx) Get(k string) ([]byte, bool) {
	if v, ok := t.writes[k]; ok {
		return v, v != nil
	}
	if _, known := t.read[k]; !known {
		t.fetch([]string{k})
	}
	v, ok := t.values[k]
	return v, ok
}

// Put implements store.Tx.
func (t *tx) Put(k string, v []byte) { t.writes[k] = append([]byte{}, v...) }

// Delete implements store.Tx.
func (t *tx) Delete(k string) { t.writes[k] = nil }

// Scan implements store.Tx.
func (t *tx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		found := t.scan(prefix)
		for _, k := range slices.Sorted(maps.Keys(found)) {
			if !yield(k, found[k]) {
				return
			}
		}
	}
}

// scan is what is there, with what this transaction has changed.
func (t *tx) scan(prefix string) map[string][]byte {
	found := map[string][]byte{}
	if t.err != nil {
		return found
	}
	ctx, cancel := context.WithTimeout(t.ctx, perRequest)
	defer cancel()
	kvs, rev, err := t.s.all(ctx, prefix, t.rev)
	if err != nil {
		t.err = err
		return found
	}
	t.keepRevision(rev)
	t.scanned = append(t.scanned, prefix)
	for _, kv := range kvs {
		found[strings.TrimPrefix(string(kv.Key), t.s.Prefix)] = kv.Value
	}
	for k, v := range t.writes {
		switch {
		case !strings.HasPrefix(k, prefix):
		case v == nil:
			delete(found, k)
		default:
			found[k] = v
		}
	}
	return found
}

// commit writes, if all that was read is still so.
func (t *tx) commit() (rev int64, err error) {
	if len(t.writes) == 0 {
		return t.rev, nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, perRequest)
	defer cancel()
	resp, err := t.s.Client.Txn(ctx).If(t.conditions()...).Then(t.operations()...).Commit()
	if err != nil {
		return 0, classify(t.ctx, err)
	}
	if !resp.Succeeded {
		return 0, errConflict
	}
	return resp.Header.Revision, nil
}

func (t *tx) conditions() (cs []clientv3.Cmp) {
	for k, rev := range t.read {
		cs = append(cs, clientv3.Compare(clientv3.ModRevision(t.s.Prefix+k), "=", rev))
	}
	for _, p := range t.scanned {
		cs = append(cs, clientv3.Compare(clientv3.ModRevision(t.s.Prefix+p).WithPrefix(), "<", t.rev+1))
		cs = append(cs, clientv3.Compare(t.trace(p), "<", t.rev+1))
	}
	return cs
}

// trace is where deletions below a prefix are seen: with a prefix of less than a first
// part, those of all parts that begin so.
func (t *tx) trace(prefix string) clientv3.Cmp {
	g := clientv3.ModRevision(t.s.gone(prefix))
	if !strings.Contains(prefix, "/") {
		g = g.WithPrefix()
	}
	return g
}

func (t *tx) operations() (ops []clientv3.Op) {
	traces := map[string]bool{}
	for k, v := range t.writes {
		if v != nil {
			ops = append(ops, clientv3.OpPut(t.s.Prefix+k, string(v), clientv3.WithLease(t.s.Lease)))
			continue
		}
		ops = append(ops, clientv3.OpDelete(t.s.Prefix+k))
		if t.s.Lease == clientv3.NoLease {
			traces[t.s.gone(k)] = true
		}
	}
	for g := range traces {
		ops = append(ops, clientv3.OpPut(g, ""))
	}
	return ops
}
