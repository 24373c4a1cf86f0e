package main

import (
	"context"

	"isle/api"
	"isle/internal/engine"
	"isle/internal/network"
)

// nameTTL is in every answer about a container, in seconds.
const nameTTL = 5

// reports puts what the networks say of themselves into the words of the API.
func reports(m *network.Manager) engine.Reports {
	return engine.Reports{
		Names: func(ctx context.Context, networkID string) ([]api.DNSRecord, error) {
			all, err := m.Names(ctx, networkID)
			var out []api.DNSRecord
			for _, r := range all {
				out = append(out, api.DNSRecord{Name: r.Name, Type: r.Type, Value: r.Addr.String(), TTL: nameTTL, Container: r.Container})
			}
			return out, err
		},
		Exposure: func(ctx context.Context) (out api.Exposure, err error) {
			all, err := m.Exposure(ctx)
			for _, e := range all {
				out.Entries = append(out.Entries, api.Exposed(e))
			}
			return out, err
		},
		Doctor: func(ctx context.Context) (out api.Diagnosis, err error) {
			found, err := m.Doctor(ctx)
			for _, f := range found {
				out.Findings = append(out.Findings, api.Finding(f))
			}
			return out, err
		},
	}
}
