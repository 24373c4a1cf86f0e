// Package bolt is the Store of one host: a bbolt file.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"isle/internal/store"
)

var (
	bucket     = []byte("isle")
	versionKey = "meta/version"
)

// Store is a store.Store in one file. Updates are serialised; views are not.
type Store struct{ db *bbolt.DB }

var _ store.Store = (*Store)(nil)

// Open opens or makes the file at path. It fails with class Unavailable when
// another process has it open.
func Open(path string) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: another isled is using it: %w", path, errdefs.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &Store{db}
	if err := s.Update(context.Background(), checkVersion); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return s, nil
}

func checkVersion(tx store.Tx) error {
	b, ok := tx.Get(versionKey)
	if !ok {
		tx.Put(versionKey, strconv.AppendInt(nil, store.Version, 10))
		return nil
	}
	if v, err := strconv.Atoi(string(b)); err != nil || v != store.Version {
		return fmt.Errorf("format %q, this isled reads %d: %w", b, store.Version, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Close waits for transactions under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(btx *bbolt.Tx) error { return fn(&tx{b: btx.Bucket(bucket)}) })
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(btx *bbolt.Tx) error {
		b, err := btx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		t := &tx{b: b}
		if err := fn(t); err != nil {
			return err
		}
		return t.err
	})
}

// tx keeps the first write error, so that callers need not look at each write.
type tx struct {
	b   *bbolt.Bucket
	err error
}

func (t *tx) Get(k string) ([]byte, bool) {
	v := t.b.Get([]byte(k))
	return v, v != nil
}

func (t *tx) Put(k string, v []byte) { t.keep(t.b.Put([]byte(k), v)) }
func (t *tx) Delete(k string)        { t.keep(t.b.Delete([]byte(k))) }

func (t *tx) keep(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *tx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		p, c := []byte(prefix), t.b.Cursor()
		for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
			if !yield(string(k), v) {
				return
			}
		}
	}
}
