// Package cni tests isle-cni as runtimes use it: by libcni, by containerd's go-cni and by
// cnitool, against a real isled on a machine of the test's own.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"isle/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	lab.Main(m, nil)
}

// debian is where the package containernetworking-plugins puts the reference plugins.
const debian = "/usr/lib/cni"

// runtime is a container runtime, as far as networks are concerned.
type runtime struct {
	*testing.T
	isled *lab.Isled
	cni   *libcni.CNIConfig
	dir   string
}

// start starts an isled, and takes all away after the test.
func start(t *testing.T) *runtime {
	t.Helper()
	r := &runtime{T: t, isled: lab.Run(t, ""), dir: t.TempDir()}
	r.cni = libcni.NewCNIConfigWithCacheDir([]string{lab.Bin(), debian}, filepath.Join(r.dir, "cache"), nil)
	t.Cleanup(func() { lab.Check(t) })
	return r
}

// namespace makes a network namespace, as a runtime does, and gives its path.
func (r *runtime) namespace(name string) string {
	r.Helper()
	r.shell("ip netns add %s", name)
	r.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	return "/run/netns/" + name
}

// shell runs a command of the test's, and gives its output.
func (r *runtime) shell(format string, args ...any) string {
	r.Helper()
	out, err := r.try(format, args...)
	if err != nil {
		r.Fatalf("%s: %v\n%s\n--- isled:\n%s", fmt.Sprintf(format, args...), err, out, r.isled.Tail())
	}
	return out
}

// eventually runs a command until it succeeds.
func (r *runtime) eventually(format string, args ...any) {
	r.Helper()
	var out string
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if out, err = r.try(format, args...); err == nil {
			return
		}
	}
	r.Errorf("%s: %v\n%s\n--- isled:\n%s", fmt.Sprintf(format, args...), err, out, r.isled.Tail())
}

func (r *runtime) try(format string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(format, args...))
	cmd.Env = append(os.Environ(), "PATH="+lab.Bin()+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// serve answers HTTP in a namespace until the test ends.
func (r *runtime) serve(ns string, port int) {
	r.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, filepath.Join(lab.Bin(), "isle-toolbox"), "serve", "-q", fmt.Sprintf("http://:%d", port))
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// list is a list of plugins; $SOCKET stands for isled's.
func (r *runtime) list(version, name string, plugins ...string) *libcni.NetworkConfigList {
	r.Helper()
	text := fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [%s]}`, version, name, strings.Join(plugins, ", "))
	l, err := libcni.NetworkConfFromBytes([]byte(strings.ReplaceAll(text, "$SOCKET", r.isled.Socket)))
	if err != nil {
		r.Fatal(err)
	}
	return l
}

func container(id, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0"}
}

// add attaches a container, and gives the result in the newest form.
func (r *runtime) add(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	r.Helper()
	res, err := r.cni.AddNetworkList(r.Context(), l, rt)
	if err != nil {
		r.Fatalf("ADD: %v\n--- isled:\n%s", err, r.isled.Tail())
	}
	if v := res.Version(); v != l.CNIVersion {
		r.Errorf("the result is of version %s, not %s", v, l.CNIVersion)
	}
	out, err := types100.NewResultFromResult(res)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *runtime) del(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	r.Helper()
	if err := r.cni.DelNetworkList(r.Context(), l, rt); err != nil {
		r.Fatalf("DEL: %v\n--- isled:\n%s", err, r.isled.Tail())
	}
}

func (r *runtime) check(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	r.Helper()
	if err := r.cni.CheckNetworkList(r.Context(), l, rt); err != nil {
		r.Errorf("CHECK: %v", err)
	}
}

// fails asks for an error of CNI with a code and words.
func (r *runtime) fails(err error, code uint, words ...string) {
	r.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		r.Errorf("not an error of CNI: %v", err)
		return
	}
	if e.Code != code {
		r.Errorf("code %d, not %d: %v", e.Code, code, e)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			r.Errorf("%q does not say %q", e.Error(), w)
		}
	}
}

// clean fails when something is left of attachments.
func (r *runtime) clean() {
	r.Helper()
	var left string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = lab.Leftovers(r.isled); left == "" {
			return
		}
	}
	r.Errorf("left behind:\n%s", left)
}

// address is the one address of a result.
func address(t *testing.T, res *types100.Result) string {
	t.Helper()
	if len(res.IPs) == 0 {
		t.Fatalf("the result has no address: %+v", res)
	}
	return res.IPs[0].Address.IP.String()
}

// plugin runs isle-cni by itself, as no library would: they refuse some of this before.
// code is 0 when it succeeded.
func (r *runtime) plugin(command, id, netns, ifname, conf string) (code uint, out string) {
	r.Helper()
	conf = strings.ReplaceAll(`{"cniVersion": "1.1.0", "name": "pods", `+conf[1:], "$SOCKET", r.isled.Socket)
	cmd := exec.Command(filepath.Join(lab.Bin(), "isle-cni"))
	cmd.Stdin = strings.NewReader(conf)
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=" + ifname, "CNI_PATH=" + lab.Bin()}
	b, err := cmd.Output()
	if err == nil {
		return 0, string(b)
	}
	var e types.Error
	if err := json.Unmarshal(b, &e); err != nil {
		r.Fatalf("%s: not an error of CNI: %q", command, b)
	}
	return e.Code, string(b)
}
