package network_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"isle/internal/netspec"
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
