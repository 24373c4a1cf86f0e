package member

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// calls stands before every call of the etcd.
type calls struct {
	pages  chan struct{} // holds one for each large answer that is made
	refuse func(host string) error
	ended  context.Context
	end    context.CancelFunc
}

func newCalls(refuse func(host string) error) *calls {
	if refuse == nil {
		refuse = func(string) error { return nil }
	}
	c := &calls{refuse: refuse, pages: make(chan struct{}, pagesAtOnce)}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

func (c *calls) admit(ctx context.Context) error {
	host := caller(ctx)
	if err := c.refuse(host); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

// caller is the host whose certificate was shown; TLS has verified it.
func caller(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ""
	}
	return info.State.PeerCertificates[0].Subject.CommonName
}

func (c *calls) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.admit(ctx); err != nil {
		return nil, err
	}
	if large(req) {
		if err := c.take(ctx); err != nil {
			return nil, err
		}
		defer func() { <-c.pages }()
	}
	return next(ctx, req)
}

// pagesAtOnce bounds what is held, and done, for hosts that read everything: after a
// power cut all of them do, and those that have read it already must be able to keep their leases.
const pagesAtOnce = 4

// large reports whether the answer may have thousands of records.
func large(req any) bool {
	r, ok := req.(*pb.RangeRequest)
	return ok && len(r.RangeEnd) > 0 && !r.CountOnly && (r.Limit == 0 || r.Limit > 100)
}

func (c *calls) take(ctx context.Context) error {
	select {
	case c.pages <- struct{}{}:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-c.ended.Done():
		return status.Error(codes.Unavailable, "the member ends")
	}
}

func (c *calls) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.admit(s.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	g := &gatherer{ServerStream: &stream{s, ctx, cancel, c}}
	defer g.end()
	return next(srv, g)
}

// stream asks again with each message in either direction: watches and leases last long.
type stream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelFunc
	calls  *calls
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.admit()
}

func (s *stream) SendMsg(m any) error {
	if err := s.admit(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// admit ends the call of a host that was removed: etcd goes on after a failed send.
func (s *stream) admit() error {
	err := s.calls.admit(s.ctx)
	if err != nil {
		s.cancel()
	}
	return err
}
