package cni

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"isle/test/lab"
)

const isle = `{"type": "isle-cni", "socket": "$SOCKET", "network": "pods"}`

// TestLife attaches a namespace by every version of the specification.
func TestLife(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "--ipv6=false", "--subnet", "10.50.0.0/24", "pods")
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			r := *r
			r.T = t
			l, pod := r.list(version, "pods", isle), container("pod-"+version, r.namespace("pod"))
			res := r.add(l, pod)
			if len(res.Interfaces) != 2 || res.Interfaces[1].Name != "eth0" || res.Interfaces[1].Sandbox != pod.NetNS {
				t.Errorf("interfaces: %+v", res.Interfaces)
			}
			if ip := res.IPs[0]; ip.Gateway.String() != "10.50.0.1" || *ip.Interface != 1 {
				t.Errorf("address: %+v", ip)
			}
			if len(res.Routes) != 1 || res.Routes[0].Dst.String() != "0.0.0.0/0" || res.Routes[0].GW.String() != "10.50.0.1" {
				t.Errorf("routes: %+v", res.Routes)
			}
			r.shell("ip netns exec pod isle-toolbox ping -c 1 %s", lab.LAN4)
			mac := r.shell("ip netns exec pod cat /sys/class/net/eth0/address")
			if hw, _ := net.ParseMAC(res.Interfaces[1].Mac); hw.String() != mac {
				t.Errorf("MAC address %s, not %s", res.Interfaces[1].Mac, mac)
			}
			if version >= "0.4.0" {
				r.check(l, pod)
			}
			r.del(l, pod)
			if out, err := r.try("ip -n pod link show eth0"); err == nil {
				t.Errorf("the interface is still there: %s", out)
			}
			r.del(l, pod)
			r.clean()
		})
	}
}

// TestNames: in a namespace that is not Isle's, names of the network resolve, in both
// directions.
func TestNames(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	r.isled.Isle(t, "run", "-d", "--name", "web", "--network", "pods", "isle/toolbox", "sleep", "1000")
	l, pod := r.list("1.1.0", "pods", isle), container("0123456789abcdef", r.namespace("pod"))
	pod.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "cart-0"}}
	res := r.add(l, pod)
	if s := res.DNS.Nameservers; len(s) != 1 || s[0] != "127.0.0.11" {
		t.Errorf("name servers: %v", s)
	}
	r.shell("ip netns exec pod isle-toolbox dig +short web @127.0.0.11 | grep .")
	for _, name := range []string{"cart-0", "cart-0.shop", "0123456789ab"} {
		if got := r.isled.Isle(t, "exec", "web", "dig", "+short", name); got != address(t, res) {
			t.Errorf("%s is %q, not %s", name, got, address(t, res))
		}
	}
	r.isled.Isle(t, "exec", "web", "ping", "-c", "1", "cart-0")
	r.del(l, pod)
	r.isled.Isle(t, "rm", "-f", "web")
	r.clean()
}

// TestRestart: attachments outlive isled, what is taken away of them is put back, and
// names are answered.
func TestRestart(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	r.add(l, pod)
	before := r.shell("ip -n pod -o addr; ip -n pod route; ip -n pod link show eth0")
	r.isled.Kill()
	r.fails(r.cni.GetStatusNetworkList(t.Context(), l), 50, "does not answer")
	_, err := r.cni.AddNetworkList(t.Context(), l, container("other", r.namespace("other")))
	r.fails(err, 11, "does not answer", "running")
	r.fails(r.cni.DelNetworkList(t.Context(), l, pod), 11)
	if err := r.isled.Start(); err != nil {
		t.Fatal(err)
	}
	r.check(l, pod)
	if after := r.shell("ip -n pod -o addr; ip -n pod route; ip -n pod link show eth0"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	r.shell("ip netns exec pod isle-toolbox dig +short pod @127.0.0.11 | grep .")
	r.del(l, pod)
	r.clean()
}

// TestGone: the namespace has gone before DEL.
func TestGone(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	r.add(l, pod)
	r.shell("ip netns del pod")
	pod.NetNS = ""
	r.del(l, pod)
	r.clean()
	r.isled.Isle(t, "network", "rm", "pods")
}

// TestHealed: CHECK says what is missing, and it is put back.
func TestHealed(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l, pod := r.list("1.1.0", "pods", isle), container("pod", r.namespace("pod"))
	res := r.add(l, pod)
	r.isled.Stop()
	r.shell("ip -n pod addr del %s dev eth0", res.IPs[0].Address.String())
	if err := r.isled.Start(); err != nil {
		t.Fatal(err)
	}
	r.check(l, pod)
	r.shell("ip -n pod addr del %s dev eth0", res.IPs[0].Address.String())
	r.fails(r.cni.CheckNetworkList(t.Context(), l, pod), 101, "lacks address "+res.IPs[0].Address.String())
	r.eventually("ip -n pod addr show dev eth0 | grep -F %s", res.IPs[0].Address.String())
	r.del(l, pod)
	r.clean()
}

// TestManyAtOnce: a node that starts has many pods to start.
func TestManyAtOnce(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	l := r.list("1.1.0", "pods", isle)
	pods := make([]*libcni.RuntimeConf, 24)
	for i := range pods {
		name := fmt.Sprintf("pod%d", i)
		pods[i] = container(name, r.namespace(name))
	}
	each := func(what string, do func(*libcni.RuntimeConf) error) {
		t.Helper()
		var group errgroup.Group
		for _, p := range pods {
			group.Go(func() error { return do(p) })
		}
		if err := group.Wait(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	var mu sync.Mutex
	has := map[string]string{}
	each("ADD", func(p *libcni.RuntimeConf) error {
		res, err := r.cni.AddNetworkList(t.Context(), l, p)
		if err != nil {
			return err
		}
		now, err := types100.NewResultFromResult(res)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, ip := range now.IPs {
			if other, taken := has[ip.Address.String()]; taken {
				return fmt.Errorf("%s and %s have %s", p.ContainerID, other, ip.Address.String())
			}
			has[ip.Address.String()] = p.ContainerID
		}
		return nil
	})
	each("CHECK", func(p *libcni.RuntimeConf) error { return r.cni.CheckNetworkList(t.Context(), l, p) })
	r.isled.Isle(t, "network", "prune", "-f")
	r.isled.Isle(t, "network", "inspect", "pods")
	each("DEL", func(p *libcni.RuntimeConf) error { return r.cni.DelNetworkList(t.Context(), l, p) })
	r.isled.Isle(t, "network", "rm", "pods")
	r.clean()
}
