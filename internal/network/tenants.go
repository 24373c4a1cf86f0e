package network

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"isle/internal/network/dhcp"
)

// Lessor asks a LAN for addresses of a family; AskLAN is one.
type Lessor func(ctx context.Context, f Family, c dhcp.Config) (Lessee, dhcp.Lease, error)

// Lessee holds what the LAN gave. Package dhcp says what its methods do.
type Lessee interface {
	Lease() (l dhcp.Lease, ok bool)
	Renew()
	Release(ctx context.Context) error
	Close()
}

// AskLAN asks by DHCPv4, or by router solicitations and DHCPv6.
func AskLAN(ctx context.Context, f Family, c dhcp.Config) (Lessee, dhcp.Lease, error) {
	acquire := dhcp.Acquire
	if f == IPv6 {
		acquire = dhcp.Acquire6
	}
	client, l, err := acquire(ctx, c)
	if err != nil {
		return nil, l, err
	}
	return client, l, nil
}

// asking is to end with a client that holds a lease.
type asking func(context.Context) (Lessee, error)

// tenants hold the leases of endpoints while isled runs. They only say that there is
// news: the Manager reads it when it can.
type tenants struct {
	mu   sync.Mutex
	of   map[string]map[Family]*tenant // by endpoint
	news map[string]string             // endpoint → what happened last
	wake chan struct{}
}

// tenant is one lease. Until there is a client it is being asked for.
type tenant struct {
	client Lessee
	cancel context.CancelFunc // ends the asking
	asked  chan struct{}      // closed when the asking is over
	err    error              // of the asking, then
}

func newTenants() *tenants {
	return &tenants{of: map[string]map[Family]*tenant{}, news: map[string]string{}, wake: make(chan struct{}, 1)}
}

// tell notes that an endpoint's leases have changed. It never waits.
func (t *tenants) tell(endpoint, what string) {
	t.mu.Lock()
	t.news[endpoint] = what
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// heard are the news since it was asked last.
func (t *tenants) heard() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.news
	t.news = map[string]string{}
	return out
}

// add has a lease asked for and held. It waits for none.
func (t *tenants) add(endpoint string, f Family, ask asking) *tenant {
	ctx, cancel := context.WithCancel(context.Background())
	one := &tenant{cancel: cancel, asked: make(chan struct{})}
	t.mu.Lock()
	if t.of[endpoint] == nil {
		t.of[endpoint] = map[Family]*tenant{}
	}
	t.of[endpoint][f] = one
	t.mu.Unlock()
	go t.ask(ctx, endpoint, one, ask)
	return one
}

func (t *tenants) ask(ctx context.Context, endpoint string, one *tenant, ask asking) {
	defer close(one.asked)
	client, err := ask(ctx)
	t.mu.Lock()
	one.client, one.err = client, err
	t.mu.Unlock()
	if err == nil {
		t.tell(endpoint, string(dhcp.Acquired))
	}
}

// take removes an endpoint's tenants. Their asking is over.
func (t *tenants) take(endpoint string) []*tenant {
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.of[endpoint]))
	delete(t.of, endpoint)
	delete(t.news, endpoint)
	t.mu.Unlock()
	for _, one := range all {
		one.cancel()
		<-one.asked
	}
	return all
}

// all are the endpoints that have any.
func (t *tenants) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.of))
}

// drop ends an endpoint's tenants and leaves its leases to a later start.
func (t *tenants) drop(endpoint string) {
	for _, one := range t.take(endpoint) {
		if one.client != nil {
			one.client.Close()
		}
	}
}

// release ends an endpoint's tenants and gives its leases back. That the LAN does not
// take one back is its loss: it ends by itself.
func (t *tenants) release(ctx context.Context, endpoint string) {
	var wg sync.WaitGroup
	for _, one := range t.take(endpoint) {
		if one.client != nil {
			wg.Go(func() { _ = one.client.Release(ctx) })
		}
	}
	wg.Wait()
}

// renew has an endpoint's leases confirmed: its wire was away.
func (t *tenants) renew(endpoint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.of[endpoint] {
		if one.client != nil {
			one.client.Renew()
		}
	}
}

// leases are what an endpoint may use at a time. A former lease stands until it is
// known whether it still does.
func (t *tenants) leases(e Endpoint, now time.Time) map[Family]*dhcp.Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[Family]*dhcp.Lease{}
	for f, was := range e.Leases {
		out[f] = nil
		one := t.of[e.ID][f]
		if one == nil || one.client == nil {
			if was != nil && was.Valid(now) {
				out[f] = was
			}
			continue
		}
		if l, ok := one.client.Lease(); ok {
			out[f] = &l
		}
	}
	return out
}
