package cni

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isle/internal/kernel/probe"
)

// needsReference skips where Debian's plugins are not installed; scripts/test does so.
func needsReference(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(debian, n)); err != nil {
			t.Skip(&probe.NotSupportedError{Feature: "running CNI plugin " + n, Err: err})
		}
	}
}

// TestFirstInChain: reference plugins work on what isle-cni has made.
func TestFirstInChain(t *testing.T) {
	needsReference(t, "tuning")
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l := r.list("1.0.0", "pods", isle, `{"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 1400}`)
	pod := container("pod", r.namespace("pod"))
	r.add(l, pod)
	if got := r.shell("ip netns exec pod cat /proc/sys/net/ipv4/conf/all/log_martians /sys/class/net/eth0/mtu"); got != "1\n1400" {
		t.Errorf("log_martians and MTU: %s", got)
	}
	r.check(l, pod)
	r.del(l, pod)
	r.clean()
}

// TestPortmap: the reference plugin can publish ports, where the network lets others in.
// There is no CHECK here: that of Debian's portmap does not find its own rules.
func TestPortmap(t *testing.T) {
	needsReference(t, "portmap")
	r := start(t)
	r.isled.Isle(t, "network", "create", "--ipv6=false", "-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected", "pods")
	l := r.list("1.0.0", "pods", isle, `{"type": "portmap", "capabilities": {"portMappings": true}}`)
	pod := container("pod", r.namespace("pod"))
	pod.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	r.add(l, pod)
	r.serve("pod", 80)
	r.eventually("ip netns exec lan isle-toolbox get http://10.77.0.1:8080/")
	r.del(l, pod)
	r.clean()
}

// TestLaterInChain: what was made before is passed on, and the default route is left
// alone.
func TestLaterInChain(t *testing.T) {
	needsReference(t, "bridge", "host-local", "portmap")
	r := start(t)
	r.isled.Isle(t, "network", "create", "--subnet", "10.50.0.0/24", "--ipv6=false", "pods")
	l := r.list("1.0.0", "both", // Debian's plugins know no newer one
		`{"type": "bridge", "bridge": "other0", "isGateway": true, "ipam": {"type": "host-local", "dataDir": "`+r.dir+`", "subnet": "10.60.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}`,
		`{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "interface": "isle0"}`)
	pod := container("pod", r.namespace("pod"))
	res := r.add(l, pod)
	t.Cleanup(func() { r.try("ip link del other0") })
	var names []string
	for _, i := range res.Interfaces {
		names = append(names, i.Name)
	}
	if len(names) != 5 || names[2] != "eth0" || names[4] != "isle0" {
		t.Errorf("interfaces: %v", names)
	}
	if len(res.IPs) != 2 || *res.IPs[1].Interface != 4 || !strings.HasPrefix(res.IPs[1].Address.String(), "10.50.0.") {
		t.Errorf("addresses: %+v", res.IPs)
	}
	if got := r.shell("ip -n pod route show default"); !strings.Contains(got, "dev eth0") {
		t.Errorf("default route: %s", got)
	}
	if len(res.Routes) != 1 {
		t.Errorf("routes: %+v", res.Routes)
	}
	r.del(l, pod)
	if left := r.shell("ip -n pod -o link | cut -d: -f2"); strings.Contains(left, "isle0") {
		t.Errorf("interfaces afterwards: %s", left)
	}
	r.clean()
}

// TestTwoNetworks: one chain may attach a container twice. The first leads out.
func TestTwoNetworks(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "--subnet", "10.50.0.0/24", "--ipv6=false", "pods")
	r.isled.Isle(t, "network", "create", "--subnet", "10.40.0.0/24", "--ipv6=false", "a-store")
	l := r.list("1.1.0", "both", isle, `{"type": "isle-cni", "socket": "$SOCKET", "network": "a-store", "interface": "eth1", "capabilities": {"portMappings": true}}`)
	pod := container("pod", r.namespace("pod"))
	pod.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80}}}
	res := r.add(l, pod)
	if len(res.IPs) != 2 || len(res.Routes) != 1 || res.Routes[0].GW.String() != "10.50.0.1" {
		t.Errorf("result: %+v", res)
	}
	r.check(l, pod)
	r.serve("pod", 80)
	r.eventually("ip netns exec lan isle-toolbox get http://10.77.0.1:8080/")
	r.isled.Kill()
	if err := r.isled.Start(); err != nil {
		t.Fatal(err)
	}
	r.check(l, pod)
	r.shell("ip netns exec lan isle-toolbox get http://10.77.0.1:8080/")
	r.del(l, pod)
	if links := strings.Fields(r.shell("ls /sys/class/net/")); slices.Contains(links, "eth1") {
		t.Errorf("links: %v", links)
	}
	r.clean()
}
