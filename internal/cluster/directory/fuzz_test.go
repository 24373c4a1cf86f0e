package directory

import (
	"log/slog"
	"testing"

	"isle/internal/store/etcd"
)

// FuzzRecord: whatever is in the store, it is taken in or reported.
func FuzzRecord(f *testing.F) {
	f.Add("fabric/host/x", []byte(`{"ID":"x","Name":"n","Addr":"192.0.2.1"}`))
	f.Add("fabric/network/x", []byte(`{"ID":"x","Name":"n","VNI":5,"Record":{"Pools":[{"Subnet":"10.0.0.0/8"}]}}`))
	f.Add("fabric/endpoint/x", []byte(`{"ID":"x","Network":"n","Host":"h","Addrs":["10.0.0.1/24"],"MAC":[2,0,0,0,0,0]}`))
	f.Add("fabric/unheard/of", []byte(`{}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		var s state
		s.init("h", slog.New(slog.DiscardHandler))
		s.apply(etcd.Batch{Reset: true, Revision: 1})
		s.apply(etcd.Batch{Revision: 2, Events: []etcd.Event{{Key: key, Value: value, Revision: 2}}})
		v := s.view()
		if n := len(v.Hosts) + len(v.Networks) + len(v.Endpoints); n+len(s.faults) != 1 {
			t.Errorf("%d records, %d faults", n, len(s.faults))
		}
		s.apply(etcd.Batch{Revision: 3, Events: []etcd.Event{{Key: key, Gone: true, Revision: 3}}})
		if v := s.view(); len(v.Hosts)+len(v.Networks)+len(v.Endpoints)+len(s.taken)+len(s.faults) != 0 {
			t.Errorf("something stays: %+v, %v, %v", v, s.taken, s.faults)
		}
	})
}
