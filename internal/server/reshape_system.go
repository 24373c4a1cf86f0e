package server

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"isle/api"
)

// infoBefore50 has fields that say nothing any more.
type infoBefore50 struct {
	system.Info
	BridgeNfIptables  bool
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
}

// infoBefore49 has the commits of components twice.
type infoBefore49 struct {
	infoBefore50
	RegistryConfig   *oldRegistryConfig
	ContainerdCommit oldCommit
	RuncCommit       oldCommit
	InitCommit       oldCommit
}

type oldRegistryConfig struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

type oldCommit struct{ ID, Expected string }

func infoFor(v version, i system.Info) any {
	if v >= 52 {
		i.NRI = nil // since 1.53
		return i
	}
	i.NRI = nil
	if v < 50 {
		i.DiscoveredDevices = nil
	}
	i.FirewallBackend = since(v, 49, i.FirewallBackend)
	i.Containerd = since(v, 46, i.Containerd)
	if v < 44 {
		i.Runtimes = withoutStatus(i.Runtimes)
	}
	if v < 41 {
		i.CgroupVersion, i.DefaultAddressPools = "", nil
	}
	if v < 25 {
		i.SecurityOptions = plainOptions(i.SecurityOptions)
	}
	switch old := (infoBefore50{Info: i}); {
	case v >= 50:
		return i
	case v == 49:
		return old
	default:
		return oldest49(old)
	}
}

func oldest49(i infoBefore50) infoBefore49 {
	old := infoBefore49{infoBefore50: i}
	if i.RegistryConfig != nil {
		old.RegistryConfig = &oldRegistryConfig{ServiceConfig: i.RegistryConfig}
	}
	old.ContainerdCommit = oldCommit{i.ContainerdCommit.ID, i.ContainerdCommit.ID}
	old.RuncCommit = oldCommit{i.RuncCommit.ID, i.RuncCommit.ID}
	old.InitCommit = oldCommit{i.InitCommit.ID, i.InitCommit.ID}
	return old
}

func withoutStatus(all map[string]system.RuntimeWithStatus) map[string]system.RuntimeWithStatus {
	old := make(map[string]system.RuntimeWithStatus, len(all))
	for name, r := range all {
		r.Status = nil
		old[name] = r
	}
	return old
}

// plainOptions turns "name=seccomp,profile=x" into "seccomp".
func plainOptions(opts []string) []string {
	var plain []string
	for _, o := range opts {
		name, _, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
		plain = append(plain, name)
	}
	return plain
}

// oldMessage is an event before 1.52.
type oldMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func eventFor(v version, m events.Message) any {
	if v >= 52 {
		return m
	}
	old := oldMessage{Message: m}
	if m.Type == events.ContainerEventType || m.Type == events.ImageEventType {
		old.Status, old.ID = string(m.Action), m.Actor.ID
	}
	if m.Type == events.ContainerEventType {
		old.From = m.Actor.Attributes["image"]
	}
	return old
}

// usage is system.DiskUsage with what stood there before 1.52. Version 1.52
// has both.
type usage struct {
	*system.DiskUsage
	*oldUsage
}

type oldUsage struct {
	LayersSize int64
	Images     any
	Containers []container.Summary
	Volumes    []volumetypes.Volume
	BuildCache []build.CacheRecord
}

func usageFor(v version, u system.DiskUsage, verbose bool) usage {
	if v < 52 {
		return usage{oldUsage: usageBefore52(v, u)}
	}
	if verbose {
		return usage{DiskUsage: &u}
	}
	old := usageBefore52(v, u)
	return usage{DiskUsage: brief(u), oldUsage: old}
}

func usageBefore52(v version, u system.DiskUsage) *oldUsage {
	old := &oldUsage{}
	if u.ImageUsage != nil {
		old.LayersSize = u.ImageUsage.TotalSize
		old.Images = imageUse(v, u.ImageUsage.Items)
	}
	if u.ContainerUsage != nil {
		old.Containers = list(summaries(v, slices.Clone(u.ContainerUsage.Items)))
	}
	if u.VolumeUsage != nil {
		old.Volumes = list(u.VolumeUsage.Items)
	}
	if u.BuildCacheUsage != nil {
		old.BuildCache = list(u.BuildCacheUsage.Items)
	}
	return old
}

// imageUse is a list of images that keeps the number of containers, which lists
// before 1.51 do not have but this answer always had.
func imageUse(v version, items []imagetypes.Summary) any {
	use := slices.Clone(items)
	for i := range use {
		use[i].RepoTags, use[i].RepoDigests = list(use[i].RepoTags), list(use[i].RepoDigests)
		use[i].Descriptor, use[i].Manifests = since(v, 48, use[i].Descriptor), nil
	}
	if v >= 44 {
		return list(use)
	}
	return oldSummaries(use)
}

// brief leaves the items out.
func brief(u system.DiskUsage) *system.DiskUsage {
	if u.ImageUsage != nil {
		c := *u.ImageUsage
		c.Items = nil
		u.ImageUsage = &c
	}
	if u.ContainerUsage != nil {
		c := *u.ContainerUsage
		c.Items = nil
		u.ContainerUsage = &c
	}
	if u.VolumeUsage != nil {
		c := *u.VolumeUsage
		c.Items = nil
		u.VolumeUsage = &c
	}
	if u.BuildCacheUsage != nil {
		c := *u.BuildCacheUsage
		c.Items = nil
		u.BuildCacheUsage = &c
	}
	return &u
}

// oldNet is a network before 1.48.
type oldNet struct {
	network.Network
	EnableIPv4 *bool `json:",omitempty"`
	Containers map[string]network.EndpointResource
	Services   map[string]network.ServiceInfo `json:",omitempty"`
}

// ourNetwork is a network with what Docker's does not tell.
type ourNetwork struct {
	network.Inspect
	Overlaps []string `json:",omitempty"` // what else on this host uses its addresses
	Uplink   string   `json:",omitempty"` // which interface of the host it is on, and how that is
	// Results are what those who make the network said of its containers, by their ids.
	Results map[string]json.RawMessage `json:",omitempty"`
	Cluster *api.NetworkSpan           `json:",omitempty"` // where in its cluster it is, when that is asked for
}

func networkFor(v version, n network.Inspect, ours ourNetwork) any {
	n.Status = since(v, 52, n.Status)
	if n.Containers == nil {
		n.Containers = map[string]network.EndpointResource{}
	}
	if v >= 48 {
		ours.Inspect = n
		return ours
	}
	return oldNet{Network: n.Network, Containers: n.Containers, Services: n.Services}
}

// listedNetwork is a network in a list: Docker has an empty map there.
type listedNetwork struct {
	network.Network
	Containers map[string]network.EndpointResource
}

func networkListed(v version, n network.Network) any {
	none := map[string]network.EndpointResource{}
	if v < 48 {
		return oldNet{Network: n, Containers: none}
	}
	return listedNetwork{n, none}
}
