package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"isle/internal/config"
	"isle/internal/version"
)

// hub is the registry of names without a host, and where it really is.
const (
	hub     = "docker.io"
	hubHost = "registry-1.docker.io"
)

// remote is how one operation reaches registries: with one client and the
// credentials that came with the request.
type remote struct {
	registries map[string]config.Registry
	auth       *registry.AuthConfig
	onToken    func(refreshToken string) // for login
}

func (s *Service) remote(auth *registry.AuthConfig) remote {
	return remote{registries: s.cfg.Registries, auth: decodeAuth(auth)}
}

// decodeAuth fills in user and password from the form of a client's config file.
func decodeAuth(a *registry.AuthConfig) *registry.AuthConfig {
	if a == nil || a.Auth == "" || a.Username != "" {
		return a
	}
	plain, err := base64.StdEncoding.DecodeString(a.Auth)
	user, pass, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok {
		return a
	}
	c := *a
	c.Username, c.Password = user, strings.TrimRight(pass, "\x00")
	return &c
}

// given reports whether there are credentials at all.
func (r remote) given() bool {
	a := r.auth
	return a != nil && (a.Username != "" || a.IdentityToken != "" || a.RegistryToken != "")
}

// resolver speaks to registries. tracker may be nil.
func (r remote) resolver(tracker docker.StatusTracker) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: r.hosts, Tracker: tracker, Headers: http.Header{"User-Agent": {userAgent()}},
	})
}

func userAgent() string { return "isle/" + version.Version }

// hosts are where a registry's content is looked for: mirrors, then itself.
func (r remote) hosts(name string) ([]docker.RegistryHost, error) {
	var out []docker.RegistryHost
	for _, m := range r.registries[name].Mirrors {
		h, err := r.mirror(m)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	h, err := r.origin(name)
	if err != nil {
		return nil, err
	}
	return append(out, h), nil
}

// mirror never sees the user's credentials: they are for the registry.
func (r remote) mirror(raw string) (docker.RegistryHost, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return docker.RegistryHost{}, fmt.Errorf("registry mirror %q is not an http or https URL: %w", raw, errdefs.ErrInvalidArgument)
	}
	client, err := newClient(u.Host, r.registries[u.Host])
	if err != nil {
		return docker.RegistryHost{}, err
	}
	path := strings.TrimSuffix(u.Path, "/")
	if !strings.HasSuffix(path, "/v2") {
		path += "/v2"
	}
	return docker.RegistryHost{
		Client: client, Host: u.Host, Scheme: u.Scheme, Path: path,
		Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(client)),
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
	}, nil
}

func (r remote) origin(name string) (docker.RegistryHost, error) {
	host := name
	if name == hub {
		host = hubHost
	}
	client, err := newClient(host, r.registries[name])
	if err != nil {
		return docker.RegistryHost{}, err
	}
	h := docker.RegistryHost{
		Client: client, Host: host, Scheme: "https", Path: "/v2", Authorizer: r.authorizer(host, client),
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
	}
	if r.auth != nil && r.auth.RegistryToken != "" {
		h.Header = http.Header{"Authorization": {"Bearer " + r.auth.RegistryToken}}
	}
	return h, nil
}

func (r remote) authorizer(host string, client *http.Client) docker.Authorizer {
	opts := []docker.AuthorizerOpt{
		docker.WithAuthClient(client),
		docker.WithAuthHeader(http.Header{"User-Agent": {userAgent()}}),
		docker.WithAuthCreds(func(asked string) (user, secret string, err error) {
			if asked != host || r.auth == nil {
				return "", "", nil
			}
			if r.auth.IdentityToken != "" {
				return "", r.auth.IdentityToken, nil
			}
			return r.auth.Username, r.auth.Password, nil
		}),
	}
	if r.onToken != nil {
		opts = append(opts, docker.WithFetchRefreshToken(func(_ context.Context, token string, _ *http.Request) { r.onToken(token) }))
	}
	return docker.NewDockerAuthorizer(opts...)
}

// newClient is for requests to one registry host. Only that host is ever
// treated as insecure: not one that it redirects to.
func newClient(host string, c config.Registry) (*http.Client, error) {
	secure := baseTransport()
	if c.CA != "" {
		pool, err := loadCA(c.CA)
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", host, err)
		}
		secure.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	t := &hostTransport{host: host, secure: secure}
	if c.Insecure || loopbackName(host) {
		insecure := baseTransport()
		insecure.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // what "insecure" means
		if !c.Insecure {
			insecure.Proxy = nil
			insecure.DialContext = (&net.Dialer{Timeout: 30 * time.Second, ControlContext: loopbackOnly}).DialContext
		}
		t.insecure = docker.NewHTTPFallback(insecure)
	}
	return &http.Client{Transport: t}, nil
}

func baseTransport() *http.Transport {
	t := docker.DefaultHTTPTransport(nil)
	t.ForceAttemptHTTP2 = true
	return t
}

func loadCA(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate: %w", file, errdefs.ErrInvalidArgument)
	}
	return pool, nil
}

// loopbackName reports whether host is written as this machine: "localhost" or
// a loopback address. What other names resolve to does not matter: whoever
// answers the query would decide whether certificates are checked.
func loopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// loopbackOnly refuses to connect anywhere else, whatever "localhost" resolved to.
func loopbackOnly(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("registry on localhost resolved to %s, which is not this machine: %w", address, errdefs.ErrPermissionDenied)
	}
	return nil
}

// hostTransport sends requests to host by the insecure transport, if there is
// one, and all others by the secure one. It also bounds the bodies of
// everything but blobs.
type hostTransport struct {
	host     string
	secure   http.RoundTripper
	insecure http.RoundTripper
}

func (t *hostTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rt := t.secure
	if t.insecure != nil && req.URL.Host == t.host {
		rt = t.insecure
	}
	resp, err := rt.RoundTrip(req)
	if err != nil || strings.Contains(asked(req).URL.Path, "/blobs/") {
		return resp, err
	}
	if resp.ContentLength > maxDocument {
		resp.Body.Close()
		return nil, tooMuch("%s has %d bytes, allowed are %d", req.URL.Path, resp.ContentLength, maxDocument)
	}
	resp.Body = &boundedBody{resp.Body, maxDocument}
	return resp, nil
}

// asked is the request that redirects led on from.
func asked(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

var errBody = errors.New("registry sent more than is allowed")

// boundedBody fails, rather than ends, when there is more than left bytes.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("%w: %w", errBody, errdefs.ErrInvalidArgument)
	}
	return n, err
}
