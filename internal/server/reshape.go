package server

import (
	"net/netip"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
)

// This file and reshape_system.go give answers the shape that they have in the version
// that was asked for. Where a field of today's type must look otherwise, a
// struct around the type has a field of the same name: encoding/json takes the
// outer one.

// since is p from version since on, else nil.
func since[T any](v, first version, p *T) *T {
	if v < first {
		return nil
	}
	return p
}

func summaries(v version, all []container.Summary) []container.Summary {
	for i := range all {
		c := &all[i]
		c.Health = since(v, 52, c.Health)
		c.ImageManifestDescriptor = since(v, 48, c.ImageManifestDescriptor)
		if v < 46 {
			c.HostConfig.Annotations = nil
		}
		if c.NetworkSettings != nil {
			ns := *c.NetworkSettings
			ns.Networks = endpoints(v, "", ns.Networks)
			c.NetworkSettings = &ns
		}
	}
	return all
}

// endpoints is a changed copy of eps: they may be part of the record.
func endpoints(v version, shortID string, eps map[string]*network.EndpointSettings) map[string]*network.EndpointSettings {
	if v >= 48 || eps == nil {
		return eps
	}
	old := make(map[string]*network.EndpointSettings, len(eps))
	for name, ep := range eps {
		c := ep.Copy()
		old[name] = c
		if c == nil {
			continue
		}
		c.GwPriority = 0
		if v < 44 {
			c.DNSNames = nil
		}
		if v < 45 && shortID != "" && !builtinNetwork(name) && !slices.Contains(c.Aliases, shortID) {
			c.Aliases = append(c.Aliases, shortID)
		}
	}
	return old
}

func builtinNetwork(name string) bool {
	return name == network.NetworkBridge || name == network.NetworkHost || name == network.NetworkNone || name == network.NetworkDefault
}

// oldInspect is a container before 1.52.
type oldInspect struct {
	container.InspectResponse
	Config          *oldConfig
	HostConfig      any
	NetworkSettings *oldNetworkSettings
}

type oldConfig struct {
	container.Config
	OnBuild []string
}

// oldHostConfig is a host configuration before 1.42.
type oldHostConfig struct {
	*container.HostConfig
	KernelMemory    int64
	KernelMemoryTCP int64
}

// oldNetworkSettings repeats the endpoint on the default bridge.
type oldNetworkSettings struct {
	container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             network.HardwareAddr
}

func inspected(v version, c container.InspectResponse) any {
	c.ImageManifestDescriptor = since(v, 48, c.ImageManifestDescriptor)
	if c.NetworkSettings != nil {
		ns := *c.NetworkSettings
		ns.Networks = endpoints(v, c.ID[:min(len(c.ID), 12)], ns.Networks)
		c.NetworkSettings = &ns
	}
	if v >= 52 {
		return c
	}
	old := oldInspect{InspectResponse: c, HostConfig: c.HostConfig, NetworkSettings: oldNetwork(c.NetworkSettings)}
	if c.Config != nil {
		old.Config = &oldConfig{*c.Config, c.Config.OnBuild}
	}
	if v < 42 && c.HostConfig != nil {
		old.HostConfig = oldHostConfig{HostConfig: c.HostConfig}
	}
	return old
}

func oldNetwork(ns *container.NetworkSettings) *oldNetworkSettings {
	if ns == nil {
		return nil
	}
	old := &oldNetworkSettings{NetworkSettings: *ns}
	if ep := ns.Networks[network.NetworkBridge]; ep != nil {
		old.EndpointID, old.Gateway, old.IPAddress, old.IPPrefixLen = ep.EndpointID, ep.Gateway, ep.IPAddress, ep.IPPrefixLen
		old.GlobalIPv6Address, old.GlobalIPv6PrefixLen = ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen
		old.IPv6Gateway, old.MacAddress = ep.IPv6Gateway, ep.MacAddress
	}
	return old
}

// oldSummary is an image in a list before 1.44.
type oldSummary struct {
	imagetypes.Summary
	VirtualSize int64
}

func imageSummaries(v version, all []imagetypes.Summary) any {
	for i := range all {
		m := &all[i]
		m.Descriptor = since(v, 48, m.Descriptor)
		if v < 47 {
			m.Manifests = nil
		}
		if v < 51 {
			m.Containers = -1
		}
		if v < 43 && len(m.RepoTags) == 0 && len(m.RepoDigests) == 0 {
			m.RepoTags, m.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		m.RepoTags, m.RepoDigests = list(m.RepoTags), list(m.RepoDigests)
	}
	if v >= 44 {
		return list(all)
	}
	return oldSummaries(all)
}

func oldSummaries(all []imagetypes.Summary) []oldSummary {
	old := make([]oldSummary, 0, len(all))
	for _, m := range all {
		old = append(old, oldSummary{m, m.Size})
	}
	return old
}

// imageBefore52 shows what is not set, too.
type imageBefore52 struct {
	imagetypes.InspectResponse
	Parent          string
	Comment         string
	DockerVersion   string
	Author          string
	Config          any
	VirtualSize     *int64  `json:",omitempty"` // < 1.44
	Created         *string `json:",omitempty"`
	Container       *string `json:",omitempty"` // < 1.45
	ContainerConfig any     `json:",omitempty"` // < 1.45
}

// imageConfig52 shows what is not set, too.
type imageConfig52 struct {
	*dockerspec.DockerOCIImageConfig
	Cmd        []string
	Entrypoint []string
	Env        []string
	Labels     map[string]string
	OnBuild    []string
	User       string
	Volumes    map[string]struct{}
	WorkingDir string
}

// imageConfig50 has fields of a container, which in an image are never set.
type imageConfig50 struct {
	imageConfig52
	Hostname     string
	Domainname   string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Image        string
}

const noTime = "0001-01-01T00:00:00Z"

func imageInspected(v version, m imagetypes.InspectResponse) any {
	m.Identity = since(v, 53, m.Identity)
	m.Descriptor = since(v, 48, m.Descriptor)
	if v < 48 {
		m.Manifests = nil
	}
	m.RepoTags, m.RepoDigests = list(m.RepoTags), list(m.RepoDigests)
	if v >= 52 {
		return m
	}
	old := imageBefore52{InspectResponse: m, Comment: m.Comment, Author: m.Author, Config: oldImageConfig(v, m.Config)}
	if m.Created != "" {
		old.Created = &m.Created
	}
	if v < 44 {
		created := m.Created
		if created == "" {
			created = noTime
		}
		old.Created, old.VirtualSize = &created, &m.Size
	}
	if v < 45 {
		old.Container, old.ContainerConfig = new(string), imageConfig50{imageConfig52: imageConfig52{DockerOCIImageConfig: &dockerspec.DockerOCIImageConfig{}}}
	}
	return old
}

func oldImageConfig(v version, c *dockerspec.DockerOCIImageConfig) any {
	if c == nil {
		return nil
	}
	old := imageConfig52{c, c.Cmd, c.Entrypoint, c.Env, c.Labels, c.OnBuild, c.User, c.Volumes, c.WorkingDir}
	if v < 50 {
		return imageConfig50{imageConfig52: old}
	}
	return old
}
