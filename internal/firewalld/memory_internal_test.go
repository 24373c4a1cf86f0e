package firewalld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// TestNobodyListens: where there is no bus, networks that come and go leave nothing.
func TestNobodyListens(t *testing.T) {
	z := New(slog.New(slog.DiscardHandler))
	z.Connect = func() (*dbus.Conn, error) { return nil, errors.New("no bus") }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- z.Run(ctx) }()
	for i := range 1000 {
		z.Add(fmt.Sprint("isle", i))
		z.Remove(fmt.Sprint("isle", i))
	}
	left := func() int {
		z.mu.Lock()
		defer z.mu.Unlock()
		return len(z.want)
	}
	for end := time.Now().Add(10 * time.Second); left() > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if n := left(); n > 0 {
		t.Errorf("%d bridges are remembered", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
