package runtime

import (
	"fmt"
	"testing"
)

// BenchmarkRun is create, start, exit known; delete is behind the clock, as
// the engine has it.
func BenchmarkRun(b *testing.B) {
	w := newWorld(b, usual[0])
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		id := fmt.Sprintf("b%d", i)
		req := w.request(id, box{args: []string{"/bin/true"}})
		b.StartTimer()
		if _, err := w.c.Create(w.ctx, req); err != nil {
			b.Fatal(err)
		}
		if err := w.c.Start(w.ctx, id); err != nil {
			b.Fatal(err)
		}
		w.exit(Proc{ID: id})
		b.StopTimer()
		w.c.Delete(w.ctx, id)
		w.c.Ack(w.ctx, Proc{ID: id})
		b.StartTimer()
	}
}
