package member

import "context"

// TidyNow is what Tidy does now and then.
func (m *Member) TidyNow(ctx context.Context) error { return m.tidy(ctx) }

// Full: it takes no changes any more.
func (m *Member) Full() bool { return m.full() }

// Bytes is how large its file is.
func (m *Member) Bytes() int64 { return m.etcd.Server.Backend().Size() }
