package lan

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"isle/internal/kernel/kerneltest"
)

// all are the links of the host, a line each.
func (b *bench) all() []string {
	b.t.Helper()
	out, err := exec.Command("ip", "-o", "-d", "link").Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// mac is the MAC address of an interface of the host.
func (b *bench) mac(name string) string {
	b.t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return i.HardwareAddr.String()
}

// inside is the network namespace of a container.
func (b *bench) inside(container string) kerneltest.NS {
	b.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%s/ns/net", b.Isle(b.t, "inspect", "-f", "{{.State.Pid}}", container)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return kerneltest.Wrap(b.t, f)
}

// routerMAC is the MAC address of the router.
func (b *bench) routerMAC() (mac string) {
	b.t.Helper()
	b.router.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = i.HardwareAddr.String()
		}
		return err
	})
	return mac
}
