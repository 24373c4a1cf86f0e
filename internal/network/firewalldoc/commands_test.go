package firewalldoc

import (
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
)

// command does what a line of a page says.
func (h *host) command(line string) error {
	args := strings.Fields(strings.ReplaceAll(line, "'", ""))
	var err error
	switch {
	case strings.HasPrefix(line, "isle network create "):
		err = h.create(args[3:])
	case strings.HasPrefix(line, "isle network connect "):
		err = h.connect(args[3], args[4])
	case strings.HasPrefix(line, "isle run "):
		err = h.container(args[2:])
	case strings.HasPrefix(line, "isle exec "):
		err = h.in(args[2], func() error { return program(args[3:]) })
	case args[0] == "isle":
		err = fmt.Errorf("the test has no such command")
	default:
		err = h.in("host", func() error { return program(args) })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return h.names.learn(h.manager)
}

func program(args []string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (h *host) create(args []string) error {
	req := api.CreateRequest{Options: map[string]string{}, IPAM: &api.IPAM{}}
	f := flag.NewFlagSet("create", flag.ContinueOnError)
	f.BoolVar(&req.Internal, "internal", false, "")
	f.Func("o", "", func(s string) error { k, v, _ := strings.Cut(s, "="); req.Options[k] = v; return nil })
	f.BoolFunc("ipv6", "", func(s string) error { on := s == "true"; req.EnableIPv6 = &on; return nil })
	f.Func("subnet", "", func(s string) error {
		p, err := netip.ParsePrefix(s)
		req.IPAM.Config = append(req.IPAM.Config, api.IPAMConfig{Subnet: p})
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	req.Name = f.Arg(0)
	_, err := h.manager.Create(h.t.Context(), req)
	return err
}

func (h *host) connect(net, container string) error {
	_, err := h.manager.Connect(h.t.Context(), container, network.ConnectRequest{Network: net, ContainerName: container, ContainerID: container})
	return err
}

// container is "isle run": its network, and a server for each argument of serve.
func (h *host) container(args []string) error {
	var name string
	var nets, ports, from, caps []string
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.Bool("d", false, "")
	f.StringVar(&name, "name", "", "")
	for flag, list := range map[string]*[]string{"network": &nets, "p": &ports, "from": &from, "cap-add": &caps} {
		f.Func(flag, "", func(s string) error { *list = append(*list, s); return nil })
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if len(nets) == 0 {
		nets = []string{"bridge"}
	}
	req := network.OpenRequest{ID: name, Name: name}
	for _, n := range nets {
		req.Networks = append(req.Networks, place(n, name))
	}
	var err error
	if req.Ports.Specs, err = specs(ports, from); err != nil {
		return err
	}
	out, err := h.manager.Open(h.t.Context(), req)
	if err != nil {
		return err
	}
	h.serveAll(name, f.Args())
	return h.apply(routes(out.Endpoints[0], caps))
}

// place is "--network NAME" or "--network name=NAME,driver-opt=KEY=VALUE".
func place(n, container string) network.ConnectRequest {
	n, opt, _ := strings.Cut(strings.TrimPrefix(n, "name="), ",driver-opt=")
	c := network.ConnectRequest{Network: n, ContainerName: container, ContainerID: container}
	if k, v, ok := strings.Cut(opt, "="); ok {
		c.Settings.DriverOpts = map[string]string{k: v}
	}
	return c
}

func (h *host) serveAll(name string, args []string) {
	for _, a := range args {
		if at, udp := strings.CutPrefix(a, "udp://"); udp {
			h.serve(name, "udp", at)
		} else if strings.HasPrefix(a, ":") {
			h.serve(name, "tcp", a)
		}
	}
}

// apply adds what the manager cannot be asked for.
func (h *host) apply(objs []netspec.Object) error {
	want := netspec.State{}
	want.Add(objs...)
	return reconcile.Apply(h.t.Context(), h.kernel, reconcile.Diff(nil, want))
}

// specs are the ports, as the command line asks for them.
func specs(ports, from []string) (out []publish.Spec, err error) {
	for _, p := range ports {
		if len(from) > 0 {
			p += ";from=" + strings.Join(from, ",")
		}
		s, err := publish.ParseSpec(p)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// routes is what NET_ADMIN does to the guard of an endpoint's sources.
func routes(ep network.Endpoint, caps []string) (out []netspec.Object) {
	if len(caps) == 0 {
		return nil
	}
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		out = append(out, netspec.Source{Link: ep.HostInterface, MAC: ep.MAC, Addr: netip.PrefixFrom(all, 0)})
	}
	return out
}
