// Package store keeps records in transactions.
//
// schema.go beside this file draws what is on disk. A change of the format
// comes with a step in migrate.go.
package store

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/containerd/errdefs"
)

// Store runs transactions. Implementations: bolt (one host), etcd (cluster).
type Store interface {
	// View runs fn on one snapshot.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn and commits when it returns nil. On a conflict fn is run
	// again, so fn must have no effect but on its Tx.
	Update(ctx context.Context, fn func(Tx) error) error
}

// Tx is one transaction. It is not usable after fn returns, and neither are
// the slices that it handed out.
type Tx interface {
	Get(key string) ([]byte, bool)
	Put(key string, value []byte)
	Delete(key string)
	// Scan yields the records whose keys begin with prefix, in key order. The
	// transaction must not be written to while the sequence is being read.
	Scan(prefix string) iter.Seq2[string, []byte]
}

// Table is a typed view of the records under one prefix.
type Table[T any] struct{ prefix string }

// NewTable returns the table of T under prefix.
func NewTable[T any](prefix string) Table[T] { return Table[T]{prefix + "/"} }

// Get returns one record; the error is of class NotFound when there is none.
func (t Table[T]) Get(tx Tx, id string) (T, error) {
	var v T
	b, ok := tx.Get(t.prefix + id)
	if !ok {
		return v, fmt.Errorf("record %s%s: %w", t.prefix, id, errdefs.ErrNotFound)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("record %s%s: %w: %w", t.prefix, id, err, errdefs.ErrDataLoss)
	}
	return v, nil
}

// Put writes one record.
func (t Table[T]) Put(tx Tx, id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s%s: %w", t.prefix, id, err)
	}
	tx.Put(t.prefix+id, b)
	return nil
}

// Delete removes one record, if it is there.
func (t Table[T]) Delete(tx Tx, id string) { tx.Delete(t.prefix + id) }

// All yields every record; the error is for a record that does not decode.
func (t Table[T]) All(tx Tx) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for k, b := range tx.Scan(t.prefix) {
			var v T
			err := json.Unmarshal(b, &v)
			if err != nil {
				err = fmt.Errorf("record %s: %w: %w", k, err, errdefs.ErrDataLoss)
			}
			if !yield(v, err) {
				return
			}
		}
	}
}
