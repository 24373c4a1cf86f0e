package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Login checks credentials with a registry. The token that a registry may give
// in exchange for the password is for the client to keep.
func (s *Service) Login(ctx context.Context, auth registry.AuthConfig) (registry.AuthResponse, error) {
	ctx = s.context(ctx)
	name := serverName(auth.ServerAddress)
	var mu sync.Mutex
	var token string
	r := s.remote(&auth)
	if auth.IdentityToken == "" {
		r.onToken = func(t string) {
			mu.Lock()
			defer mu.Unlock()
			token = t
		}
	}
	h, err := r.origin(name)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	if _, _, err := get(ctx, h, "/"); err != nil {
		return registry.AuthResponse{}, loginError(h, err)
	}
	mu.Lock()
	defer mu.Unlock()
	return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token}, nil
}

// serverName is the registry that a client means by an address such as
// https://index.docker.io/v1/.
func serverName(address string) string {
	host := address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host = u.Host
	}
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "index.docker.io", hubHost, hub:
		return hub
	}
	return host
}

func loginError(h docker.RegistryHost, err error) error {
	status, _ := registryCode(err)
	if status == http.StatusUnauthorized || status == http.StatusForbidden || errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("login attempt to %s://%s%s/ failed with status: %d %s: unauthorized: incorrect username or password: %w",
			h.Scheme, h.Host, h.Path, status, http.StatusText(status), errdefs.ErrUnauthenticated)
	}
	return fmt.Errorf("login to %s: %w", h.Host, err)
}

// Distribution asks a registry what a name stands for there.
func (s *Service) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (registry.DistributionInspect, error) {
	ctx = s.context(ctx)
	var out registry.DistributionInspect
	n, err := parseName(ref)
	if err != nil {
		return out, err
	}
	r := s.remote(auth)
	resolver := r.resolver(nil)
	_, d, err := resolver.Resolve(ctx, n.String())
	if err != nil {
		return out, remoteError(n, r.whyMissing(ctx, n, err), r.given())
	}
	fetcher, err := resolver.Fetcher(ctx, n.String())
	if err != nil {
		return out, fmt.Errorf("registry of %s: %w", n, err)
	}
	lctx, release, err := s.leased(ctx)
	if err != nil {
		return out, err
	}
	j := pull{s: s, name: n, fetcher: fetcher, progress: newProgress(nil)}
	out.Descriptor = d
	out.Platforms, err = j.platforms(lctx, d)
	return out, errors.Join(err, release())
}

// platforms are those that a remote image is for.
func (j *pull) platforms(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Platform, error) {
	if images.IsIndexType(d.MediaType) {
		var idx ocispec.Index
		if _, err := j.document(ctx, d, &idx); err != nil {
			return nil, err
		}
		var out []ocispec.Platform
		for _, m := range idx.Manifests {
			if m.Platform != nil && !attestation(m) {
				out = append(out, *m.Platform)
			}
		}
		return out, nil
	}
	if err := j.manifest(ctx, d); err != nil {
		return nil, err
	}
	v, err := j.s.variant(ctx, d)
	if err != nil {
		return nil, err
	}
	return []ocispec.Platform{v.platform}, nil
}
