package network

import (
	"bytes"

	"isle/internal/store"
)

// journal is a transaction that remembers how the records that it writes were
// before, so that exactly those can be put back.
type journal struct {
	store.Tx
	before map[string][]byte // nil: there was none
}

func newJournal(tx store.Tx) *journal { return &journal{tx, map[string][]byte{}} }

func (j *journal) Put(key string, value []byte) {
	j.remember(key)
	j.Tx.Put(key, value)
}

func (j *journal) Delete(key string) {
	j.remember(key)
	j.Tx.Delete(key)
}

func (j *journal) remember(key string) {
	if _, ok := j.before[key]; ok {
		return
	}
	v, _ := j.Get(key)
	j.before[key] = bytes.Clone(v)
}

// restore puts everything back, in another transaction.
func (j *journal) restore(tx store.Tx) error {
	for k, v := range j.before {
		if v == nil {
			tx.Delete(k)
		} else {
			tx.Put(k, v)
		}
	}
	return nil
}
