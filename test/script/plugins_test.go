package script

import (
	"net"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"

	"isle/test/plugins/l2"
	"isle/test/plugins/pools"
)

// pluginDir is where Docker's plugins have their sockets.
const pluginDir = "/run/docker/plugins"

type pluginsKey struct{}

// plugins start|stop: a network plugin "l2" and an IPAM plugin "pools". When they start
// they know nothing.
func cmdPlugins(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || args[0] != "start" && args[0] != "stop" {
		ts.Fatalf("usage: plugins start|stop")
	}
	running := ts.Value(pluginsKey{}).(*[]net.Listener)
	for _, l := range *running {
		ts.Check(l.Close())
	}
	if *running = nil; args[0] == "stop" {
		return
	}
	ts.Check(os.MkdirAll(pluginDir, 0o755))
	h, err := netlink.NewHandle()
	ts.Check(err)
	serve(ts, running, "l2", (&l2.Driver{Links: h}).Serve)
	serve(ts, running, "pools", (&pools.Driver{}).Serve)
}

func serve(ts *testscript.TestScript, running *[]net.Listener, name string, do func(net.Listener) error) {
	l, err := net.Listen("unix", filepath.Join(pluginDir, name+".sock"))
	ts.Check(err)
	*running = append(*running, l)
	go func() { _ = do(l) }()
}
