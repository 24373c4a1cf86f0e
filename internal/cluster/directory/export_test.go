package directory

import (
	"context"

	"isle/internal/store/etcd"
)

// Feed is a batch of one event, as if it came from the store.
func (d *Directory) Feed(rev int64, key, value string) {
	d.state.apply(etcd.Batch{Revision: rev, Events: []etcd.Event{{Key: key, Value: []byte(value), Revision: rev}}})
}

// Doubt is what Connect does when it is open whether it was done.
func (d *Directory) Doubt(endpoint string) {
	d.doubts.add(endpoint, func(ctx context.Context) error { return d.forget(ctx, endpoint) })
}
