package kernel

import (
	"fmt"
	"testing"

	"isle/internal/netspec"
)

// TestGone: whose flows end when ports change.
func TestGone(t *testing.T) {
	row := func(proto string, first, count, to uint16, ctr string) netspec.Publish {
		return netspec.Publish{Proto: proto, HostIP: ip("0.0.0.0"), HostPort: first, Count: count, To: ip(ctr), ToPort: to}
	}
	const a, b = "10.1.0.2", "10.1.0.3"
	for what, c := range map[string]struct {
		old  netspec.Publish
		now  []netspec.Publish
		want string
	}{
		"it is nobody's any more":            {row("tcp", 8000, 10, 80, a), nil, "8000+10>80"},
		"connections go on elsewhere":        {row("tcp", 8000, 10, 80, a), []netspec.Publish{row("tcp", 8000, 10, 80, b)}, ""},
		"datagrams do not":                   {row("udp", 8000, 10, 80, a), []netspec.Publish{row("udp", 8000, 10, 80, b)}, "8000+10>80"},
		"the row became shorter":             {row("tcp", 8000, 10, 80, a), []netspec.Publish{row("tcp", 8000, 5, 80, a)}, "8005+5>85"},
		"one in the middle went":             {row("tcp", 8000, 10, 80, a), []netspec.Publish{row("tcp", 8000, 4, 80, a), row("tcp", 8005, 5, 85, a)}, "8004+1>84"},
		"one in the middle moved":            {row("tcp", 8000, 3, 80, a), []netspec.Publish{row("tcp", 8000, 1, 80, a), row("tcp", 8001, 1, 80, b), row("tcp", 8002, 1, 82, a)}, ""},
		"one in the middle moved, datagrams": {row("udp", 8000, 3, 80, a), []netspec.Publish{row("udp", 8000, 1, 80, a), row("udp", 8001, 1, 80, b), row("udp", 8002, 1, 82, a)}, "8001+1>81"},
		"another protocol":                   {row("tcp", 8000, 1, 80, a), []netspec.Publish{row("udp", 8000, 1, 80, b)}, "8000+1>80"},
	} {
		got := ""
		for _, p := range gone(c.old, c.now) {
			got += fmt.Sprintf("%d+%d>%d", p.HostPort, p.Count, p.ToPort)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// TestBackBeforeForgotten: a port that comes back to its container before anybody
// looked keeps the connections that were made since.
func TestBackBeforeForgotten(t *testing.T) {
	var f forgetter
	p := netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 80, Count: 1, To: ip("10.1.0.2"), ToPort: 80}
	f.stale.Gone = []netspec.Publish{p}
	other := p
	other.To = ip("10.1.0.3")
	if f.back([]netspec.Publish{other}); len(f.stale.Gone) != 1 {
		t.Error("another container has it, and its own flows stay")
	}
	if f.back([]netspec.Publish{p}); len(f.stale.Gone) != 0 {
		t.Errorf("%v is to be forgotten", f.stale.Gone)
	}
}
