package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// get asks one registry host for a path below /v2, logging in as it is told
// to. What is not a success is an ErrUnexpectedStatus with the answer's body.
func get(ctx context.Context, h docker.RegistryHost, path string) (body []byte, header http.Header, err error) {
	var told []*http.Response
	for range 3 {
		resp, err := attempt(ctx, h, path)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode == http.StatusOK {
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
			return body, resp.Header, err
		}
		failed := remoteerrors.NewUnexpectedStatusErr(resp)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || h.Authorizer == nil {
			return nil, nil, failed
		}
		if told = append(told, resp); len(told) > 1 {
			return nil, nil, failed
		}
		if err := h.Authorizer.AddResponses(ctx, told); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", err, failed)
		}
	}
	return nil, nil, fmt.Errorf("registry %s: no answer after logging in: %w", h.Host, errdefs.ErrUnauthenticated)
}

func attempt(ctx context.Context, h docker.RegistryHost, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+h.Path+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header = h.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", userAgent())
	if h.Authorizer != nil {
		if err := h.Authorizer.Authorize(ctx, req); err != nil {
			return nil, err
		}
	}
	return h.Client.Do(req)
}

func pullScope(ctx context.Context, n reference.Named) context.Context {
	return docker.WithScope(ctx, "repository:"+reference.Path(n)+":pull")
}

// tags lists what a repository has.
func (r remote) tags(ctx context.Context, n reference.Named) ([]string, error) {
	h, err := r.origin(reference.Domain(n))
	if err != nil {
		return nil, err
	}
	ctx = pullScope(ctx, n)
	var all []string
	for path := "/" + reference.Path(n) + "/tags/list"; path != ""; {
		body, header, err := get(ctx, h, path)
		if err != nil {
			return nil, remoteError(n, err, r.given())
		}
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("tags of %s: %w", n, err)
		}
		if all = append(all, page.Tags...); len(all) > 10_000 {
			return nil, tooMuch("repository %s has more than 10000 tags", n)
		}
		path = nextPage(header.Get("Link"), h.Path)
	}
	return all, nil
}

// nextPage reads the path of a header like </v2/x/tags/list?last=b&n=2>; rel="next".
func nextPage(link, base string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.RequestURI(), base)
}

// whyMissing asks again for a manifest that a HEAD request did not find: only
// the body of an answer tells an unknown tag from an unknown repository.
func (r remote) whyMissing(ctx context.Context, n reference.Named, err error) error {
	if _, code := registryCode(err); !errdefs.IsNotFound(err) || code != "" {
		return err
	}
	h, herr := r.origin(reference.Domain(n))
	if herr != nil {
		return err
	}
	object := "latest"
	switch n := n.(type) {
	case reference.Digested:
		object = n.Digest().String()
	case reference.Tagged:
		object = n.Tag()
	}
	if _, _, gerr := get(pullScope(ctx, n), h, "/"+reference.Path(n)+"/manifests/"+object); gerr != nil {
		if status, _ := registryCode(gerr); status != 0 {
			return gerr
		}
	}
	return err
}
