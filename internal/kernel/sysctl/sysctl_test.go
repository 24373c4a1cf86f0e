package sysctl_test

import (
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/sysctl"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		name, value, want string
		fails             bool
	}{
		{name: "ipv4/ip_forward", value: "1", want: "1"},
		{name: "ipv4/ip_forward", value: "1\n", want: "1"},
		{name: "ipv4/ping_group_range", value: "0 5", want: "0 5"},
		{name: "ipv4/no_such_thing", value: "1", fails: true},
		{name: "ipv4/ip_forward", value: "many", fails: true},
		{name: "../kernel/hostname", value: "x", fails: true}, // CVE-2025-52881: only what is meant
		{name: "ipv4/../../kernel/hostname", value: "x", fails: true},
		{name: "/proc/sys/net/ipv4/ip_forward", value: "0", fails: true},
		{name: "", value: "0", fails: true},
	} {
		kerneltest.NewNS(t).Do(func() error {
			_, err := sysctl.Write(tt.name, tt.value)
			if (err != nil) != tt.fails {
				t.Errorf("write %s=%q: %v", tt.name, tt.value, err)
			}
			if got, err := sysctl.Read(tt.name); !tt.fails && (err != nil || got != tt.want) {
				t.Errorf("read %s: %q, %v", tt.name, got, err)
			}
			return nil
		})
	}
}
