package cni

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"isle/internal/kernel/probe"
	"isle/test/lab"
)

// TestMacvlan and TestIPvlan: networks of the LAN, too.
func TestMacvlan(t *testing.T) { onLAN(t, "macvlan", "bridge") }

func TestIPvlan(t *testing.T) {
	for _, mode := range []string{"l2", "l3"} {
		t.Run(mode, func(t *testing.T) { onLAN(t, "ipvlan", mode) })
	}
}

func onLAN(t *testing.T, driver, mode string) {
	r := start(t)
	create := []string{"network", "create", "-d", driver, "-o", "parent=up0", "-o", driver + "_mode=" + mode, "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25"}
	if mode != "l3" {
		create = append(create, "--gateway", lab.LAN4)
	}
	r.isled.Isle(t, append(create, "pods")...)
	if code, out := r.plugin("ADD", "try", r.namespace("try"), "eth0", isle); code != 0 && strings.Contains(out, "not supported") {
		t.Skipf("%s is not supported by this kernel", driver)
	}
	r.plugin("DEL", "try", "", "eth0", isle)
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	res := r.add(l, pod)
	if len(res.Interfaces) != 1 || res.Interfaces[0].Mac == "" {
		t.Errorf("interfaces: %+v", res.Interfaces)
	}
	r.shell("ip netns exec pod isle-toolbox ping -c 1 %s", lab.LAN4)
	r.check(l, pod)
	r.isled.Kill()
	if err := r.isled.Start(); err != nil {
		t.Fatal(err)
	}
	r.check(l, pod)
	r.del(l, pod)
	if out := r.shell("ip -n pod -o link"); strings.Contains(out, "eth0") {
		t.Errorf("left: %s", out)
	}
	r.clean()
}

const dhcpServer = `no-resolv
no-hosts
port=0
interface=eth0
bind-interfaces
dhcp-range=10.77.0.50,10.77.0.59,255.255.255.0,120
dhcp-option=option:router,10.77.0.2
dhcp-leasefile=$DIR/leases
dhcp-authoritative
no-ping
`

// TestLeased: the address is the LAN's to give, and is in the result.
func TestLeased(t *testing.T) {
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "running dnsmasq", Err: err})
	}
	r := start(t)
	if err := os.WriteFile(r.dir+"/conf", []byte(strings.ReplaceAll(dhcpServer, "$DIR", r.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("ip", "netns", "exec", "lan", "dnsmasq", "-d", "-C", r.dir+"/conf")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	r.isled.Isle(t, "network", "create", "-d", "macvlan", "-o", "parent=up0", "--ipam-driver", "dhcp", "pods")
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	res := r.add(l, pod)
	if got := res.IPs[0]; !strings.HasPrefix(got.Address.String(), "10.77.0.5") || got.Gateway.String() != lab.LAN4 {
		t.Errorf("address: %+v", got)
	}
	if len(res.Routes) != 1 || res.Routes[0].GW.String() != lab.LAN4 {
		t.Errorf("routes: %+v", res.Routes)
	}
	r.eventually("grep -F ' %s ' %s/leases", address(t, res), r.dir)
	r.check(l, pod)
	r.del(l, pod)
	r.eventually("! grep -F ' %s ' %s/leases", address(t, res), r.dir) // it is given back
	r.clean()
}
