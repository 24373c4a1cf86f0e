package kernel

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
)

// TestReapsAgain: a link that could not be deleted is not forgotten.
func TestReapsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		r := reaper{log: slog.New(slog.DiscardHandler), stop: make(chan struct{})}
		r.check = func(names []string) ([]string, error) {
			if tries++; tries < 3 {
				return names, errors.New("no")
			}
			return nil, nil
		}
		r.add("isv1")
		r.wg.Wait()
		if tries != 3 || len(r.names) != 0 || r.running {
			t.Errorf("%d tries, left %v, running %t", tries, r.names, r.running)
		}
	})
}
