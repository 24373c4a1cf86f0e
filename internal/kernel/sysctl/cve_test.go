package sysctl_test

import (
	"os"
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/sysctl"
)

// CVE-2025-52881: a name cannot lead a write out of the settings of the network
// to others of the machine.
func TestCVE_2025_52881(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/kernel/domainname")
	if err != nil {
		t.Fatal(err)
	}
	ns := kerneltest.NewNS(t)
	for _, name := range []string{"../kernel/domainname", "ipv4/../../kernel/domainname", "/proc/sys/kernel/domainname", "ipv4//ip_forward", "./ipv4/ip_forward", ".."} {
		ns.Do(func() error {
			if old, err := sysctl.Write(name, "isle.test"); err == nil {
				_, _ = sysctl.Write(name, old)
				t.Errorf("%s was written", name)
			}
			return nil
		})
	}
	if after, _ := os.ReadFile("/proc/sys/kernel/domainname"); string(after) != string(before) {
		t.Errorf("the machine's domain name is %q, was %q", after, before)
	}
}
