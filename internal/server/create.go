package server

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	isle "isle/internal/container"
)

// configBody is container.Config as clients write it: commands may be one
// string, and there is a MAC address that today's type does not have.
type configBody struct {
	*container.Config
	Cmd        words
	Entrypoint words
	Shell      words
	MacAddress network.HardwareAddr
}

// config is nil when the body said nothing.
func (b configBody) config() *container.Config {
	if b.Config == nil && b.Cmd == nil && b.Entrypoint == nil && b.Shell == nil {
		return nil
	}
	c := b.Config
	if c == nil {
		c = &container.Config{}
	}
	c.Cmd, c.Entrypoint, c.Shell = b.Cmd, b.Entrypoint, b.Shell
	return c
}

// createBody is the body of /containers/create.
type createBody struct {
	configBody
	HostConfig       *hostBody
	NetworkingConfig *network.NetworkingConfig
}

type hostBody struct {
	container.HostConfig
	Capabilities []string // of 1.40 alone
}

func (s *Server) containerCreate(a *answer, r *http.Request) error {
	q := queryOf(r)
	opts := isle.CreateOptions{Name: strings.TrimPrefix(q.Get("name"), "/")}
	if a.v >= 41 {
		opts.Platform = q.platform("platform")
	}
	if q.err != nil {
		return q.err
	}
	var body createBody
	if err := require(a, r, &body); err != nil {
		return err
	}
	warnings, err := s.settle(a, r, &opts, body)
	if err != nil {
		return err
	}
	resp, err := s.Backend.ContainerCreate(r.Context(), opts)
	if err != nil {
		return err
	}
	resp.Warnings = append(list(resp.Warnings), warnings...)
	return a.json(http.StatusCreated, resp)
}

// settle makes of a request of any version one of the newest.
func (s *Server) settle(a *answer, r *http.Request, opts *isle.CreateOptions, b createBody) (warnings []string, err error) {
	opts.Config = b.config()
	if opts.Config == nil {
		return nil, invalid("config cannot be empty in order to create a container")
	}
	if b.HostConfig == nil {
		b.HostConfig = &hostBody{}
	}
	if a.v == 40 && b.HostConfig.Capabilities != nil {
		return nil, invalid("HostConfig.Capabilities is not supported; hint: use CapAdd and CapDrop")
	}
	opts.Host = &b.HostConfig.HostConfig
	opts.Networking = networking(b.NetworkingConfig)
	if opts.Host.NetworkMode == "" {
		opts.Host.NetworkMode = network.NetworkDefault
	}
	if err := oldHost(a.v, opts.Host); err != nil {
		return nil, err
	}
	if a.v < 41 && opts.Host.CgroupnsMode.IsEmpty() && !s.cgroup2(r) {
		opts.Host.CgroupnsMode = container.CgroupnsModeHost // as it was on cgroup v1
	}
	if a.v < 44 && opts.Config.Healthcheck != nil {
		opts.Config.Healthcheck.StartInterval = 0
	}
	if err := oldEndpoints(a.v, opts.Networking.EndpointsConfig); err != nil {
		return nil, err
	}
	oldSysctls(a.v, opts)
	return wideMAC(a.v, b.MacAddress, opts)
}

func (s *Server) cgroup2(r *http.Request) bool {
	info, err := s.Backend.Info(r.Context())
	return err == nil && info.CgroupVersion == "2"
}

// networking has no nil in it.
func networking(n *network.NetworkingConfig) *network.NetworkingConfig {
	if n == nil {
		n = &network.NetworkingConfig{}
	}
	if n.EndpointsConfig == nil {
		n.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	for k, ep := range n.EndpointsConfig {
		if ep == nil {
			n.EndpointsConfig[k] = &network.EndpointSettings{}
		}
	}
	return n
}

// oldHost gives a host configuration the meaning that it had in its version.
func oldHost(v version, h *container.HostConfig) error {
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil // 0 and -1 are "no limit"
	}
	if v < 40 && h.IpcMode.IsEmpty() {
		h.IpcMode = container.IPCModeShareable
	}
	if v < 42 {
		h.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		h.Annotations = nil
	}
	for i := range h.Mounts {
		if err := oldMount(v, &h.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func oldMount(v version, m *mount.Mount) error {
	if v >= 42 {
		if err := matchingOptions(m); err != nil {
			return err
		}
	}
	if b := m.BindOptions; b != nil {
		b.NonRecursive = b.NonRecursive && v >= 40
		b.CreateMountpoint = b.CreateMountpoint && v >= 42
	}
	if v < 44 && m.Type == mount.TypeBind && m.ReadOnly {
		// Read-only did not reach into what is mounted below.
		if m.BindOptions == nil {
			m.BindOptions = &mount.BindOptions{}
		}
		m.BindOptions.ReadOnlyNonRecursive, m.BindOptions.ReadOnlyForceRecursive = true, false
	}
	switch {
	case v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "":
		return invalid("VolumeOptions.Subpath needs API v1.45 or newer")
	case v < 46 && m.TmpfsOptions != nil && len(m.TmpfsOptions.Options) > 0:
		return invalid("TmpfsOptions.Options needs API v1.46 or newer")
	case v < 48 && m.Type == mount.TypeImage:
		return invalid(`Mount type "image" needs API v1.48 or newer`)
	}
	return nil
}

// matchingOptions refuses options of another type than the mount's.
func matchingOptions(m *mount.Mount) error {
	for _, o := range []struct {
		name  string
		given bool
		of    []mount.Type
	}{
		{"BindOptions", m.BindOptions != nil, []mount.Type{mount.TypeBind}},
		{"VolumeOptions", m.VolumeOptions != nil, []mount.Type{mount.TypeVolume, mount.TypeCluster}},
		{"TmpfsOptions", m.TmpfsOptions != nil, []mount.Type{mount.TypeTmpfs}},
		{"ImageOptions", m.ImageOptions != nil, []mount.Type{mount.TypeImage}},
	} {
		if o.given && !slices.Contains(o.of, m.Type) {
			return invalid("invalid mount config for type %q: field %s must not be specified", m.Type, o.name)
		}
	}
	return nil
}

func oldEndpoints(v version, eps map[string]*network.EndpointSettings) error {
	if v < 44 && len(eps) > 1 {
		names := slices.Sorted(maps.Keys(eps))
		return invalid("Container cannot be connected to network endpoints: %s", strings.Join(names, ", "))
	}
	for _, ep := range eps {
		if v < 44 {
			ep.MacAddress = nil
		}
		if v < 48 {
			ep.GwPriority = 0
		}
	}
	return nil
}

const (
	epSysctls = "com.docker.network.endpoint.sysctls"
	macWide   = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)

// oldSysctls moves sysctls of eth0 to the endpoint that becomes eth0, as
// long as they may stand in the container's list.
func oldSysctls(v version, o *isle.CreateOptions) {
	if v >= 48 || len(o.Networking.EndpointsConfig) > 1 {
		return
	}
	var moved []string
	for _, k := range slices.Sorted(maps.Keys(o.Host.Sysctls)) {
		p := strings.Split(k, ".")
		if len(p) == 5 && p[0] == "net" && p[3] == "eth0" && (p[2] == "conf" || p[2] == "neigh") {
			p[3] = "IFNAME"
			moved = append(moved, strings.Join(p, ".")+"="+o.Host.Sysctls[k])
			delete(o.Host.Sysctls, k)
		}
	}
	if len(moved) == 0 {
		return
	}
	ep := firstEndpoint(o)
	if old := ep.DriverOpts[epSysctls]; old != "" {
		moved = append([]string{old}, moved...)
	}
	if ep.DriverOpts == nil {
		ep.DriverOpts = map[string]string{}
	}
	ep.DriverOpts[epSysctls] = strings.Join(moved, ",")
}

// firstEndpoint is the endpoint of the network mode's network. Its key may be
// the network's id, which only one of them can be.
func firstEndpoint(o *isle.CreateOptions) *network.EndpointSettings {
	eps, mode := o.Networking.EndpointsConfig, string(o.Host.NetworkMode)
	if ep := eps[mode]; ep != nil {
		return ep
	}
	if len(eps) == 1 {
		for _, ep := range eps {
			return ep
		}
	}
	eps[mode] = &network.EndpointSettings{}
	return eps[mode]
}

// wideMAC moves the MAC address of the container to its endpoint. Since 1.52
// there is none.
func wideMAC(v version, mac network.HardwareAddr, o *isle.CreateOptions) (warnings []string, err error) {
	m := o.Host.NetworkMode
	if v >= 52 || len(mac) == 0 {
		return nil, nil
	}
	if m.IsHost() || m.IsNone() || m.IsContainer() {
		return nil, invalid("conflicting options: mac-address and the network mode")
	}
	ep := firstEndpoint(o)
	if len(ep.MacAddress) > 0 && ep.MacAddress.String() != mac.String() {
		return nil, invalid("the container-wide MAC address must match the endpoint-specific MAC address for network %q, or be left empty", m)
	}
	ep.MacAddress = mac
	if v >= 44 {
		warnings = append(warnings, macWide)
	}
	return warnings, nil
}
