package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/pki"
)

// MaxSkew is how far the clock of a host that joins may be off: certificates have times.
const MaxSkew = time.Hour

// Join asks the door at addr ("host:port") to let this host in. The secret is sent only
// to a host of the token's cluster.
func Join(ctx context.Context, addr string, token pki.Token, r JoinRequest) (ans JoinAnswer, err error) {
	c, done := client(pki.PinnedTLS(token.CA))
	defer done()
	off, err := ahead(ctx, c, addr)
	if err != nil {
		return ans, err
	}
	if off.Abs() > MaxSkew {
		return ans, fmt.Errorf("this host's clock is %s that of %s (hint: set the one that is wrong, then join again): %w", Skew(off), addr, errdefs.ErrFailedPrecondition)
	}
	r.Secret = token.Shown()
	err = call(ctx, c, http.MethodPost, "https://"+addr+"/v1/join", r, &ans)
	return ans, err
}

// Ahead asks the door at addr, of a cluster with that authority, how far the clock there
// is ahead of this host's.
func Ahead(ctx context.Context, addr string, ca [32]byte) (time.Duration, error) {
	c, done := client(pki.PinnedTLS(ca))
	defer done()
	return ahead(ctx, c, addr)
}

func ahead(ctx context.Context, c *http.Client, addr string) (time.Duration, error) {
	var there timeAnswer
	err := call(ctx, c, http.MethodGet, "https://"+addr+"/v1/time", nil, &there)
	return time.Until(there.Time), err
}

// Skew says how a clock is off that another is ahead of.
func Skew(ahead time.Duration) string {
	if ahead > 0 {
		return span(ahead) + " behind"
	}
	return span(-ahead) + " ahead of"
}

// span is in days where they are what counts.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 3*day {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", d.Round(day)/day)
}

// Renew asks the door at addr for a new certificate, in PEM.
func Renew(ctx context.Context, addr string, id *pki.Identity, request []byte) ([]byte, error) {
	c, done := client(id.ClientTLS())
	defer done()
	var r renewal
	err := call(ctx, c, http.MethodPost, "https://"+addr+"/v1/renew", renewal{Request: request}, &r)
	return r.Cert, err
}

// Promote asks the door at addr to make this host, which is one of the cluster, a member.
func Promote(ctx context.Context, addr string, id *pki.Identity) (ans JoinAnswer, err error) {
	c, done := client(id.ClientTLS())
	defer done()
	err = call(ctx, c, http.MethodPost, "https://"+addr+"/v1/member", nil, &ans)
	return ans, err
}

func client(conf *tls.Config) (*http.Client, func()) {
	t := &http.Transport{TLSClientConfig: conf, TLSHandshakeTimeout: 5 * time.Second, Proxy: nil}
	c := &http.Client{Transport: t, Timeout: perRequest, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, t.CloseIdleConnections
}

func call(ctx context.Context, c *http.Client, method, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	resp, err := c.Do(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, out); err != nil {
			return fmt.Errorf("the answer cannot be read: %w: %w", err, errdefs.ErrUnknown)
		}
		return nil
	}
	var f failure
	if err := json.Unmarshal(b, &f); err != nil || f.Message == "" {
		return fmt.Errorf("the answer is %s: %w", resp.Status, errdefs.ErrUnknown)
	}
	return f.err()
}

// unreachable keeps a class that TLS has given: a host that is not whom it should be will
// not be so with the next try.
func unreachable(ctx context.Context, err error) error {
	if u := (*url.Error)(nil); ctx.Err() == nil && errors.As(err, &u) {
		err = u.Err // the caller says whom it has called
	}
	if ctx.Err() != nil || errdefs.IsPermissionDenied(err) {
		return err
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("%w (hint: members let others in, isle cluster token names them; no firewall may be between hosts at the ports of the cluster): %w", err, errdefs.ErrUnavailable)
}
