package cni

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocni "github.com/containerd/go-cni"

	"isle/test/lab"
)

// TestContainerd makes sandboxes as containerd does: from a file below /etc/cni/net.d.
func TestContainerd(t *testing.T) {
	needsReference(t, "loopback")
	r := start(t)
	r.isled.Isle(t, "network", "create", "--subnet", "10.50.0.0/24", "--ipv6=false", "pods")
	conf := strings.ReplaceAll(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [`+wishing+`]}`, "$SOCKET", r.isled.Socket)
	if err := os.WriteFile(filepath.Join(r.dir, "10-isle.conflist"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := gocni.New(gocni.WithPluginDir([]string{lab.Bin(), debian}), gocni.WithPluginConfDir(r.dir), gocni.WithInterfacePrefix("eth"))
	if err == nil {
		err = c.Load(gocni.WithLoNetwork, gocni.WithDefaultConf)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Status(); err != nil {
		t.Error(err)
	}
	const id = "3f4e1c5a9d"
	ns := r.namespace("pod")
	opts := []gocni.NamespaceOpts{
		gocni.WithLabels(map[string]string{"K8S_POD_NAME": "cart-0", "K8S_POD_NAMESPACE": "shop", "IgnoreUnknown": "1"}),
		gocni.WithCapabilityPortMap([]gocni.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}),
		gocni.WithCapabilityDNS(gocni.DNS{Searches: []string{"svc.test"}}),
	}
	res, err := c.Setup(t.Context(), id, ns, opts...)
	if err != nil {
		t.Fatalf("%v\n--- isled:\n%s", err, r.isled.Tail())
	}
	if ips := res.Interfaces["eth0"].IPConfigs; len(ips) != 1 || ips[0].Gateway.String() != "10.50.0.1" {
		t.Errorf("addresses: %+v", ips)
	}
	if len(res.DNS) == 0 || res.DNS[len(res.DNS)-1].Nameservers[0] != "127.0.0.11" {
		t.Errorf("DNS: %+v", res.DNS)
	}
	r.serve("pod", 80)
	r.eventually("ip netns exec lan isle-toolbox get http://10.77.0.1:8080/")
	for range 2 {
		if err := c.Remove(t.Context(), id, ns, opts...); err != nil {
			t.Error(err)
		}
	}
	r.clean()
}

// TestCnitool does what people do who try a configuration.
func TestCnitool(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	tool := filepath.Join(r.dir, "cnitool")
	if out, err := exec.Command("go", "build", "-o", tool, "github.com/containernetworking/cni/cnitool").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	conf := strings.ReplaceAll(`{"cniVersion": "1.1.0", "name": "pods", "plugins": [`+isle+`]}`, "$SOCKET", r.isled.Socket)
	if err := os.WriteFile(filepath.Join(r.dir, "10-isle.conflist"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ns := r.namespace("pod")
	run := "CNI_PATH=" + lab.Bin() + " NETCONFPATH=" + r.dir + " " + tool
	if out := r.shell("%s add pods %s", run, ns); !strings.Contains(out, `"127.0.0.11"`) {
		t.Errorf("add: %s", out)
	}
	r.shell("%s check pods %s", run, ns)
	r.shell("%s status pods %s", run, ns)
	if out, err := r.try("%s gc pods %s", run, ns); err == nil || !strings.Contains(out, "valid-attachments") {
		t.Errorf("gc without a list: %v %s", err, out) // cnitool gives none; that is not an empty one
	}
	r.shell("%s del pods %s", run, ns)
	r.clean()
}
