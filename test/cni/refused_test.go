package cni

import (
	"os"
	"strings"
	"testing"
)

// TestRefused: what is wrong is said, and leaves nothing behind.
func TestRefused(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "--subnet", "10.50.0.0/24", "pods")
	r.isled.Isle(t, "network", "create", "-d", "macvlan", "-o", "parent=up0", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25", "lan")
	r.isled.Isle(t, "run", "-d", "--name", "web", "--network", "pods", "isle/toolbox", "sleep", "1000")
	good := r.namespace("pod")
	web := "/proc/" + r.isled.Isle(t, "inspect", "-f", "{{.State.Pid}}", "web") + "/ns/net"
	os.WriteFile(r.dir+"/plain", nil, 0o600)
	for _, c := range []struct {
		what, netns, ifname, id, conf string
		code                          uint
		says                          string
	}{
		{"a file", r.dir + "/plain", "eth0", "x", isle, 4, "not a network namespace"},
		{"a namespace of another kind", "/proc/self/ns/mnt", "eth0", "x", isle, 4, "not one of networks"},
		{"no namespace", "/run/netns/none", "eth0", "x", isle, 3, "not there"},
		{"the host's", "/proc/1/ns/net", "eth0", "x", isle, 4, "of the host"},
		{"a container's of Isle", web, "eth0", "x", isle, 4, "of container"},
		{"a path that is not clean", "/run/netns/../netns/pod", "eth0", "x", isle, 4, "CNI_NETNS"},
		{"a relative path", "pod", "eth0", "x", isle, 4, "CNI_NETNS"},
		{"an id that leaves a directory", good, "eth0", "../../x", isle, 4, ""},
		{"an interface with a slash", good, "a/b", "x", isle, 4, ""},
		{"an interface that is too long", good, "a123456789012345", "x", isle, 4, ""},
		{"lo", good, "lo", "x", isle, 100, "already"},
		{"no such network", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "nope"}`, 7, "isle network create nope"},
		{"no network at all", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "none"}`, 7, "none"},
		{"the host's network", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "host"}`, 7, "host"},
		{"an address of another subnet", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "runtimeConfig": {"ips": ["10.9.9.9"]}}`, 7, "10.9.9.9"},
		{"an address that is none", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "runtimeConfig": {"ips": ["ten"]}}`, 7, "ten"},
		{"a group's MAC address", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "runtimeConfig": {"mac": "01:00:00:00:00:01"}}`, 7, "MAC"},
		{"a bandwidth of next to nothing", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods", "runtimeConfig": {"bandwidth": {"ingressRate": 1}}}`, 7, "8k"},
		{"a bandwidth on the LAN", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "lan", "runtimeConfig": {"bandwidth": {"egressRate": 1000000}}}`, 7, "bridge"},
		{"a driver that is none", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": "new", "create": {"Driver": "none-such"}}`, 7, "none-such"},
		{"a type that is wrong", good, "eth0", "x", `{"type": "isle-cni", "socket": "$SOCKET", "network": 7}`, 6, "network"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := *r
			r.T = t
			code, out := r.plugin("ADD", c.id, c.netns, c.ifname, c.conf)
			if code != c.code || !strings.Contains(out, c.says) {
				t.Errorf("code %d, not %d, with %q: %s", code, c.code, c.says, out)
			}
		})
	}
	if out := r.shell("ip -n pod -o link"); strings.Contains(out, "eth0") {
		t.Errorf("left: %s", out)
	}
	r.isled.Isle(t, "rm", "-f", "web")
	r.clean()
}

// TestTwice: a place that is taken is not given again, and stays.
func TestTwice(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	ns := r.namespace("pod")
	if code, out := r.plugin("ADD", "x", ns, "eth0", isle); code != 0 {
		t.Fatal(out)
	}
	before := r.shell("ip -n pod -o addr")
	for _, again := range [][2]string{{"x", "eth0"}, {"y", "eth0"}, {"x", "eth1"}} {
		if code, out := r.plugin("ADD", again[0], ns, again[1], isle); code != 100 || !strings.Contains(out, "already") {
			t.Errorf("ADD %v: %d %s", again, code, out)
		}
	}
	if code, out := r.plugin("DEL", "y", ns, "eth0", isle); code != 0 { // was never attached
		t.Errorf("DEL: %s", out)
	}
	if after := r.shell("ip -n pod -o addr"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if code, out := r.plugin("DEL", "x", "", "eth0", isle); code != 0 {
		t.Errorf("DEL: %s", out)
	}
	r.clean()
}
