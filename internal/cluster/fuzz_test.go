package cluster

import (
	"encoding/json"
	"log/slog"
	"testing"

	"isle/internal/store/etcd"
)

// FuzzHost: whatever is written down of a host that is in the cluster, or was, what is
// taken from it can be used.
func FuzzHost(f *testing.F) {
	f.Add([]byte(`{"ID":"x","Name":"n","Addr":"192.0.2.1","Ports":{"Door":1,"Client":2,"Peer":3},"Member":true,"Certs":[{"Serial":"ab","Until":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"ID":"x","Member":true}`))
	f.Add([]byte(`[`))
	s := &session{log: slog.New(slog.DiscardHandler), self: self{ID: "h"}}
	f.Fuzz(func(t *testing.T, value []byte) {
		all := map[string]record{}
		s.takeRecord(all, etcd.Event{Key: "member/x", Value: value}, "member/")
		s.known.Store(&known{hosts: all, removed: all})
		if r, ok := all["x"]; ok && (r.ID != "x" || !json.Valid(value)) {
			t.Errorf("%q is taken for %+v", value, r)
		}
		s.openDoors()
		s.otherDoors()
		s.peerOf("x")
		if err := s.refuse("x"); (err != nil) != (len(all) == 1) {
			t.Errorf("%v", err)
		}
		s.takeRecord(all, etcd.Event{Key: "member/x", Gone: true}, "member/")
		if len(all) != 0 {
			t.Errorf("it stays: %v", all)
		}
	})
}
