package network_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store/bolt"
)

// BenchmarkOpenClose is everything but the kernel: how it grows with the number
// of containers that are there already is what to look at.
func BenchmarkOpenClose(b *testing.B) {
	for _, n := range []int{0, 300, 3000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st, err := bolt.Open(filepath.Join(b.TempDir(), "isle.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			w := newWorld()
			m := w.manager()
			m.Store, m.Kernel = st, nothing{}
			if err := m.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			for i := range n {
				if _, err := m.Open(b.Context(), request(fmt.Sprint("c", i), ports("80/tcp", ":0"), "bridge")); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := m.Open(b.Context(), request("x", ports("80/tcp", ":0"), "bridge")); err != nil {
					b.Fatal(err)
				}
				if err := m.Close(b.Context(), "x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// nothing is a kernel that does whatever it is told.
type nothing struct{}

func (nothing) Observe(context.Context) (netspec.State, error) { return nil, nil }

func (nothing) Apply(_ context.Context, c []reconcile.Change) (int, error) { return len(c), nil }

// BenchmarkPublish is one port more of a container, and one less, while others
// have many.
func BenchmarkPublish(b *testing.B) {
	for _, others := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprint("of ", others), func(b *testing.B) {
			st, err := bolt.Open(filepath.Join(b.TempDir(), "isle.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			m := newWorld().manager()
			m.Store, m.Kernel = st, nothing{}
			if err := m.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			for i := 0; i < others; i += 100 {
				all := api.PortMap{}
				for k := range min(100, others) { // no two of them make a row
					p, _ := api.PortFrom(uint16(k+1), "tcp")
					all[p] = []api.PortBinding{{HostPort: fmt.Sprint(1 + 5*(i+k))}}
				}
				if _, err := m.Open(b.Context(), request(fmt.Sprint("c", i), all, "bridge")); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := m.Open(b.Context(), request("x", nil, "bridge")); err != nil {
				b.Fatal(err)
			}
			specs, err := publish.ParseSpecs("60000:80")
			if err != nil {
				b.Fatal(err)
			}
			which := []publish.Selector{{Proto: "tcp", First: 60000, Last: 60000}}
			for b.Loop() {
				if _, err := m.Publish(b.Context(), "x", network.PortRequest{Specs: specs}); err != nil {
					b.Fatal(err)
				}
				if _, err := m.Unpublish(b.Context(), "x", which); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
