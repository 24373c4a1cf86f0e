package member

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// calls stands before every call of the etcd.
type calls struct {
	refuse func(host string) error
	ended  context.Context
	end    context.CancelFunc
}

func newCalls(refuse func(host string) error) *calls {
	if refuse == nil {
		refuse = func(string) error { return nil }
	}
	c := &calls{refuse: refuse}
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
	return next(ctx, req)
}

func (c *calls) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.admit(s.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	return next(srv, &stream{s, ctx, cancel, c})
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
