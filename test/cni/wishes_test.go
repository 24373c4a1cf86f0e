package cni

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

const wishing = `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods",
	"capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true, "bandwidth": true}}`

// TestWishes: what a runtime asks for by capabilities.
func TestWishes(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "--subnet", "10.50.0.0/24", "--ipv6=false", "pods")
	r.isled.Isle(t, "run", "-d", "--name", "web", "--network", "pods", "isle/toolbox", "sleep", "1000")
	l, pod := r.list("1.1.0", "pods", wishing), container("pod", r.namespace("pod"))
	pod.CapabilityArgs = map[string]any{
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}, {"hostPort": 0, "containerPort": 81}},
		"ips":          []string{"10.50.0.77/24"}, "mac": "02:00:00:00:00:77", "aliases": []string{"shop"},
		"dns": map[string]any{"searches": []string{"svc.test"}, "servers": []string{"10.77.0.2"}},
	}
	res := r.add(l, pod)
	if got := address(t, res); got != "10.50.0.77" {
		t.Errorf("address %s", got)
	}
	if got := res.Interfaces[1].Mac; got != "02:00:00:00:00:77" {
		t.Errorf("MAC address %s", got)
	}
	if d := res.DNS; len(d.Search) != 1 || d.Search[0] != "svc.test" || len(d.Nameservers) != 1 || d.Nameservers[0] != "127.0.0.11" {
		t.Errorf("DNS: %+v", d)
	}
	if got := r.isled.Isle(t, "exec", "web", "dig", "+short", "shop"); got != "10.50.0.77" {
		t.Errorf("shop is %q", got)
	}
	r.serve("pod", 80)
	r.eventually("ip netns exec lan isle-toolbox get http://10.77.0.1:8080/")
	r.eventually("isle-toolbox get http://127.0.0.1:8080/")
	taken := container("late", r.namespace("late"))
	taken.CapabilityArgs = map[string]any{"portMappings": pod.CapabilityArgs["portMappings"]}
	_, err := r.cni.AddNetworkList(t.Context(), l, taken)
	r.fails(err, 100, "8080")
	if out := r.shell("ip -n late -o link"); strings.Contains(out, "eth0") {
		t.Errorf("left by an ADD that failed: %s", out)
	}
	r.del(l, pod)
	r.add(l, taken)
	r.del(l, taken)
	r.isled.Isle(t, "rm", "-f", "web")
	r.clean()
}

// TestBandwidth: a container is held back in both directions, also after a restart.
func TestBandwidth(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l, pod := r.list("1.1.0", "pods", wishing), container("pod", r.namespace("pod"))
	pod.CapabilityArgs = map[string]any{"bandwidth": map[string]any{"ingressRate": 10_000_000, "ingressBurst": 800_000, "egressRate": 20_000_000, "egressBurst": 1_600_000}}
	host := r.add(l, pod).Interfaces[0].Name
	for range 2 {
		if in := r.shell("tc qdisc show dev %s", host); !strings.Contains(in, "rate 10Mbit burst 100000b") {
			t.Errorf("to the container: %s", in)
		}
		if out := r.shell("tc -n pod qdisc show dev eth0"); !strings.Contains(out, "rate 20Mbit burst 200000b") {
			t.Errorf("from the container: %s", out)
		}
		r.isled.Stop()
		r.shell("tc -n pod qdisc del dev eth0 root")
		if err := r.isled.Start(); err != nil {
			t.Fatal(err)
		}
		r.check(l, pod)
	}
	r.del(l, pod)
	r.clean()
}

// TestNetworkIsMade: a configuration may say how its network is made.
func TestNetworkIsMade(t *testing.T) {
	r := start(t)
	making := `{"type": "isle-cni", "socket": "$SOCKET", "create": {"Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.51.0.0/24"}]}, "Options": {"com.docker.network.driver.mtu": "1400"}}}`
	l, pod := r.list("1.1.0", "made", making), container("pod", r.namespace("pod"))
	if err := r.cni.GetStatusNetworkList(t.Context(), l); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	res := r.add(l, pod)
	if got := address(t, res); !strings.HasPrefix(got, "10.51.0.") || res.Interfaces[1].Mtu != 1400 {
		t.Errorf("result: %+v", res)
	}
	if out, err := r.isled.Try("network", "rm", "made"); err == nil || !strings.Contains(out, "active endpoints") {
		t.Errorf("network rm: %v %s", err, out)
	}
	r.del(l, pod)
	r.isled.Isle(t, "network", "rm", "made")
	r.clean()
}

// TestGC removes what the runtime does not name, and nothing of others.
func TestGC(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l := r.list("1.1.0", "pods", isle)
	other := r.list("1.1.0", "pods", `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "runtime": "nerdctl"}`)
	keep, drop, theirs := container("keep", r.namespace("keep")), container("drop", r.namespace("drop")), container("theirs", r.namespace("theirs"))
	r.add(l, keep)
	r.add(l, drop)
	r.add(other, theirs)
	// libcni itself removes what is in its cache: isled is asked with an empty one.
	r.cni = libcni.NewCNIConfigWithCacheDir(r.cni.Path, r.dir+"/empty", nil)
	valid := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}}}
	if err := r.cni.GCNetworkList(t.Context(), l, valid); err != nil {
		t.Fatal(err)
	}
	for ns, want := range map[string]bool{"keep": true, "drop": false, "theirs": true} {
		if out, err := r.try("ip -n %s link show eth0", ns); (err == nil) != want {
			t.Errorf("%s: interface there: %v, want %v: %s", ns, err == nil, want, out)
		}
	}
	r.del(l, keep)
	r.del(other, theirs)
	r.clean()
}
