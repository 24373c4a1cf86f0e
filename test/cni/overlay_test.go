package cni

import "testing"

// TestOverlay: a network of a cluster, of which this is the only host.
func TestOverlay(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "cluster", "init")
	r.isled.Isle(t, "network", "create", "-d", "overlay", "--subnet", "10.50.0.0/24", "pods")
	r.isled.Isle(t, "run", "-d", "--name", "web", "--network", "pods", "isle/toolbox", "sleep", "1000")
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	res := r.add(l, pod)
	if got := r.isled.Isle(t, "exec", "web", "dig", "+short", "pod"); got != address(t, res) {
		t.Errorf("pod is %q, not %s", got, address(t, res))
	}
	r.isled.Isle(t, "exec", "web", "ping", "-c", "1", "pod")
	r.check(l, pod)
	r.isled.Kill()
	if err := r.isled.Start(); err != nil {
		t.Fatal(err)
	}
	r.eventually("ip netns exec pod isle-toolbox dig +short web @127.0.0.11 | grep .") // when the cluster has been heard of
	r.check(l, pod)
	r.del(l, pod)
	r.isled.Isle(t, "rm", "-f", "web")
	r.isled.Isle(t, "network", "rm", "pods")
	r.clean()
}
