package firewalld_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"isle/internal/firewalld"
	"isle/internal/firewalld/firewalldtest"
	"isle/internal/kernel/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestZones: bridges are in the zone whatever becomes of firewalld.
func TestZones(t *testing.T) {
	d := firewalldtest.Start(t)
	z := firewalld.New(slog.New(slog.DiscardHandler))
	z.Connect = d.Connect
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- z.Run(ctx) }()
	zone := func(bridge string) string {
		out, err := d.Try("--get-zone-of-interface=" + bridge)
		if err != nil {
			return "none"
		}
		return out
	}
	check := func(when, bridge, want string) {
		t.Helper()
		got := zone(bridge)
		for end := time.Now().Add(10 * time.Second); got != want && time.Now().Before(end); got = zone(bridge) {
		}
		if got != want {
			t.Errorf("%s: %s is in zone %q, want %q", when, bridge, got, want)
		}
	}
	d.Cmd("--zone=internal", "--add-interface=isle-theirs")
	z.Add("isle0")
	z.Add("isle-theirs")
	check("at first", "isle0", "trusted")
	check("the administrator's choice", "isle-theirs", "internal")
	d.Cmd("--reload")
	check("after a reload", "isle0", "trusted")
	d.Cmd("--zone=trusted", "--remove-interface=isle0")
	d.Cmd("--reload")
	check("after somebody took it out and reloaded", "isle0", "trusted")
	d.Stop()
	z.Add("isle1")
	d.Run()
	check("after a restart", "isle0", "trusted")
	check("added while firewalld was away", "isle1", "trusted")
	d.Cmd("--permanent", "--new-zone=isle")
	d.Cmd("--permanent", "--zone=isle", "--set-target=ACCEPT")
	d.Cmd("--complete-reload")
	z.Add("isle2")
	check("the administrator made a zone for us", "isle2", "isle")
	z.Remove("isle0")
	z.Remove("isle2")
	z.Remove("isle-theirs")
	check("removed", "isle0", "none")
	check("removed", "isle2", "none")
	check("removed, but not ours to take out", "isle-theirs", "none") // a restart forgot it
	check("the others have come along", "isle1", "isle")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
