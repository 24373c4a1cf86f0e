// Command cniload attaches one network namespace by a list of CNI plugins, as a runtime
// does, and detaches it. It prints how many milliseconds either took.
//
//	cniload -plugins DIR[:DIR] -conf '{"cniVersion": …}' -port 8080
//
// The namespace is that of a thread of its own and ends with it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"
)

func main() {
	plugins := flag.String("plugins", "", "where the plugins are")
	conf := flag.String("conf", "", "the list of plugins")
	port := flag.Int("port", 0, "of the host, to be published")
	flag.Parse()
	if err := run(filepath.SplitList(*plugins), []byte(*conf), *port); err != nil {
		fmt.Fprintln(os.Stderr, "cniload:", err)
		os.Exit(1)
	}
}

func run(plugins []string, conf []byte, port int) error {
	list, err := libcni.NetworkConfFromBytes(conf)
	if err != nil {
		return err
	}
	cache, err := os.MkdirTemp("", "cniload-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	ns, err := namespace()
	if err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	rt := &libcni.RuntimeConf{
		ContainerID: fmt.Sprintf("bench-%d", os.Getpid()), NetNS: ns, IfName: "eth0",
		CapabilityArgs: map[string]any{"portMappings": []map[string]any{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}},
	}
	return measure(libcni.NewCNIConfigWithCacheDir(plugins, cache, nil), list, rt)
}

func measure(c *libcni.CNIConfig, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	ctx := context.Background()
	var took struct{ Add, Del float64 }
	start := time.Now()
	_, err := c.AddNetworkList(ctx, list, rt)
	took.Add = since(start)
	start = time.Now()
	if derr := c.DelNetworkList(ctx, list, rt); err == nil { // also what a failed ADD has left
		err = derr
	}
	took.Del = since(start)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(took)
}

func since(t time.Time) float64 { return float64(time.Since(t)) / float64(time.Millisecond) }

// namespace is the path of a new one, which lives as long as this program.
func namespace() (string, error) {
	path, failed := make(chan string), make(chan error)
	go func() {
		runtime.LockOSThread() // and never leaves: others must not run there
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		path <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		select {}
	}()
	select {
	case p := <-path:
		return p, nil
	case err := <-failed:
		return "", err
	}
}
