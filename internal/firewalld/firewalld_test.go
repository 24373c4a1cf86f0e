package firewalld_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

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

// TestRefused: what firewalld refuses while it is busy is said again.
func TestRefused(t *testing.T) {
	d := firewalldtest.Bus(t)
	c, err := d.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	const service = "org.fedoraproject.FirewallD1"
	joined, busy := make(chan string, 1), true
	methods := map[string]any{
		"getZoneOfInterface": func(string) (string, *dbus.Error) { return "", nil },
		"getZones":           func() ([]string, *dbus.Error) { return []string{"trusted"}, nil },
		"addInterface": func(zone, iface string) (string, *dbus.Error) {
			if busy {
				busy = false
				return "", dbus.NewError(service+".Exception", []any{"NOT_RUNNING"})
			}
			joined <- iface + " in " + zone
			return zone, nil
		},
	}
	if err := c.ExportMethodTable(methods, "/org/fedoraproject/FirewallD1", service+".zone"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RequestName(service, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	z := firewalld.New(slog.New(slog.DiscardHandler))
	z.Connect = d.Connect
	z.Add("isle0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- z.Run(ctx) }()
	select {
	case got := <-joined:
		if got != "isle0 in trusted" {
			t.Error(got)
		}
	case <-time.After(30 * time.Second):
		t.Error("it was said once only")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
