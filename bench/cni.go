package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// Where bench/run puts things, on the hosts.
const (
	cniLoad    = "/data/cniload"
	isleConf   = `{"cniVersion": "1.0.0", "name": "bench", "plugins": [{"type": "isle-cni", "network": "bench-cni", "socket": "/data/run/isle.sock", "create": {"EnableIPv6": false}, "capabilities": {"portMappings": true}}]}`
	othersConf = `{"cniVersion": "1.0.0", "name": "bench", "plugins": [
		{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.202.0.0/16", "dataDir": "/data/cni-ipam", "routes": [{"dst": "0.0.0.0/0"}]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`
)

// chain is a list of CNI plugins on the host of an engine.
type chain struct{ plugins, conf string }

func takesCNI(o options) time.Duration { return 5*time.Second + time.Duration(o.rounds)*time.Second }

// attachByCNI compares isle-cni with the reference plugins that do the same: bridge,
// host-local and portmap. Theirs are on the bare host.
func attachByCNI(ctx context.Context, s *session) error {
	_, bare, err := s.outside()
	if err != nil {
		return err
	}
	isle := s.all[0]
	isle.name, bare.name = "isle-cni", "reference"
	chains := map[string]chain{isle.name: {"/data/bin", isleConf}, bare.name: {"/usr/lib/cni", othersConf}}
	s.run(ctx, trial{metrics: []metric{{name: "ADD with a port, ms"}, {name: "DEL, ms"}}, engines: []engine{isle, bare}, rounds: s.rounds,
		fn: func(ctx context.Context, e engine, round int) ([]float64, error) {
			return chains[e.name].attach(ctx, e, 20000+round)
		}})
	return isle.api.removeNetwork(ctx, "bench-cni")
}

func (c chain) attach(ctx context.Context, e engine, port int) ([]float64, error) {
	out, err := output(exec.CommandContext(ctx, "nsenter", "-t", e.host, "-m", "-n", "-u", "-p", "-r", "-w", "--",
		cniLoad, "-plugins", c.plugins, "-conf", c.conf, "-port", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	var took struct{ Add, Del float64 }
	if err := json.Unmarshal(out, &took); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cniLoad, err, out)
	}
	return []float64{took.Add, took.Del}, nil
}
