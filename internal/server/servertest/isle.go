package servertest

import (
	"context"

	"isle/api"
	"isle/internal/cni"
)

// ContainerPublish remembers what was asked.
func (b *Backend) ContainerPublish(_ context.Context, ref string, req api.PublishRequest) (api.PortsResponse, error) {
	return api.PortsResponse{Added: []api.Port{}, Removed: []api.Port{}, Warnings: []string{}}, b.with(ref, func(*Container) error { b.Last = req; return nil })
}

// ContainerUnpublish remembers what was asked.
func (b *Backend) ContainerUnpublish(_ context.Context, ref string, req api.UnpublishRequest) (api.PortsResponse, error) {
	return api.PortsResponse{Added: []api.Port{}, Removed: []api.Port{}, Warnings: []string{}}, b.with(ref, func(*Container) error { b.Last = req; return nil })
}

// NetworkNames knows nobody.
func (b *Backend) NetworkNames(context.Context, string) ([]api.DNSRecord, error) { return nil, nil }

// NetworkExposure finds nothing.
func (b *Backend) NetworkExposure(context.Context) (api.Exposure, error) { return api.Exposure{}, nil }

// NetworkDoctor finds nothing.
func (b *Backend) NetworkDoctor(context.Context) (api.Diagnosis, error) { return api.Diagnosis{}, nil }

// CNI answers with the command that it was asked for.
func (b *Backend) CNI(_ context.Context, req cni.Request) ([]byte, error) {
	c, err := cni.Parse(req)
	if err != nil || c.Command != cni.Add {
		return nil, err
	}
	return c.Prev.With(c.Version, cni.Made{Interfaces: []cni.Interface{{Name: c.Interface, Sandbox: c.NetNS}}})
}
