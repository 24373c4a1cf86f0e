package engine

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"isle/api"
)

// Reports are what others find out about the networks of this host. A nil one is
// not to be had.
type Reports struct {
	Names    func(ctx context.Context, networkID string) ([]api.DNSRecord, error)
	Exposure func(ctx context.Context) (api.Exposure, error)
	Doctor   func(ctx context.Context) (api.Diagnosis, error)
}

// NetworkNames are the names that a network's resolver knows.
func (e *Engine) NetworkNames(ctx context.Context, ref string) ([]api.DNSRecord, error) {
	n, err := e.Networks.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if e.Reports.Names == nil {
		return nil, noReport("the names of a network")
	}
	return e.Reports.Names(ctx, n.ID)
}

// NetworkExposure is what can be reached from outside.
func (e *Engine) NetworkExposure(ctx context.Context) (api.Exposure, error) {
	if e.Reports.Exposure == nil {
		return api.Exposure{}, noReport("what is exposed")
	}
	return e.Reports.Exposure(ctx)
}

// NetworkDoctor is what is wrong.
func (e *Engine) NetworkDoctor(ctx context.Context) (api.Diagnosis, error) {
	if e.Reports.Doctor == nil {
		return api.Diagnosis{}, noReport("a diagnosis")
	}
	return e.Reports.Doctor(ctx)
}

func noReport(what string) error {
	return fmt.Errorf("this isled cannot tell %s: %w", what, errdefs.ErrNotImplemented)
}
