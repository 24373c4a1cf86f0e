package bolt_test

import (
	"path/filepath"
	"testing"

	"isle/internal/store"
	"isle/internal/store/bolt"
	"isle/internal/store/storetest"
)

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := bolt.Open(filepath.Join(t.TempDir(), "isle.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

func TestNewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "isle.db")
	s, err := bolt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx store.Tx) error { tx.Put("meta/version", []byte("99")); return nil })
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := bolt.Open(path); err == nil {
		t.Fatal("a database of format 99 was opened")
	}
}
