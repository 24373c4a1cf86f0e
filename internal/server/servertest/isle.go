package servertest

import (
	"context"

	"isle/api"
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
