package applet_test

import (
	"errors"
	"fmt"
	"testing"

	"isle/internal/toolbox/applet"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "64k": 64 << 10, "64m": 64 << 20, "1G": 1 << 30, "1GiB": 1 << 30, "2t": 2 << 40} {
		if got, err := applet.Size(text); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "k", "-1", "1x", "9999999999t"} {
		if got, err := applet.Size(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestHuman(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1536: "1.5K", 5 << 20: "5.0M"} {
		if got := applet.Human(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{0: nil, 1: errors.New("x"), 5: applet.Exit(5), 7: fmt.Errorf("why: %w", applet.Exit(7))} {
		if got := applet.Status(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
