package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Limits of what is taken from a plugin, besides those of Config.
const (
	headerLimit = 64 << 10
	textLimit   = 1 << 10 // of what it says in an error
	dialTime    = 10 * time.Second
)

// accept is the version of the protocol.
const accept = "application/vnd.docker.plugins.v1.2+json"

// client asks one plugin. Each call has a connection of its own: a plugin that was
// restarted is not asked on one that is dead.
type client struct {
	tr    *http.Transport
	base  string
	limit int64
}

func newClient(w where, limit int64) (*client, error) {
	tr := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerLimit,
		TLSHandshakeTimeout: dialTime, DialContext: dial(w.addr),
	}
	c := &client{tr: tr, limit: limit, base: "http://" + w.addr.Host}
	switch w.addr.Scheme {
	case "unix":
		c.base = "http://plugin.moby.localhost" // some servers refuse a path as the host
	case "https":
		c.base = "https://" + w.addr.Host
		var err error
		if tr.TLSClientConfig, err = w.tls.config(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func dial(addr url.URL) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if addr.Scheme == "unix" {
			network, to = "unix", addr.Path
		}
		conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, to)
		if err != nil {
			return nil, &unreachableError{err}
		}
		return conn, nil
	}
}

// config is Docker's: without a CAFile nothing is verified.
func (t tlsFiles) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify || t.CAFile == ""}
	if t.CAFile != "" {
		pem, _, err := readSmall(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CAFile: %w", err)
		}
		if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
			cfg.RootCAs = x509.NewCertPool()
		}
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in CAFile %s: %w", t.CAFile, errdefs.ErrInvalidArgument)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := t.pair()
		if err != nil {
			return nil, fmt.Errorf("read CertFile and KeyFile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (t tlsFiles) pair() (tls.Certificate, error) {
	cert, _, err := readSmall(t.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, _, err := readSmall(t.KeyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// unreachableError : nothing was sent, so that the call can be made again.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string {
	return e.err.Error() + " (hint: is the plugin running?)"
}

func (e *unreachableError) Unwrap() []error { return []error{e.err, errdefs.ErrUnavailable} }

// unsentError : something before the call went wrong.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }

// happened reports whether the plugin may have done what it was asked for.
func happened(err error) bool {
	return err == nil || !refused(err) && !errors.As(err, new(*unsentError)) && !errors.As(err, new(*unreachableError))
}

// refusedError is a plugin's own "no", in the words that Docker reports it in.
type refusedError struct {
	status int // 200: in the answer itself
	text   string
}

func (e *refusedError) Error() string { return e.text }

// refusal is the plugin's "no" to the call itself, not to one that came before it.
func refusal(err error) (r *refusedError, ok bool) {
	if errors.As(err, new(*unsentError)) {
		return nil, false
	}
	return r, errors.As(err, &r)
}

func refused(err error) bool {
	_, ok := refusal(err)
	return ok
}

// unknownMethod reports whether the plugin has no such call: most are newer than
// many plugins.
func unknownMethod(err error) bool {
	r, ok := refusal(err)
	return ok && r.status == http.StatusNotFound
}

// absent reports whether a plugin refused since what it was to take away is not
// there. The protocol has no code for that.
func absent(err error) bool {
	r, ok := refusal(err)
	if !ok {
		return false
	}
	text := strings.ToLower(r.text)
	for _, s := range []string{"not found", "no such", "not exist", "t exist", "unknown network", "unknown endpoint", "unknown pool", "not joined"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// answer is what all answers have in common.
type answer interface{ refusal() string }

// post makes a call. ret is filled when there is no error.
func (c *client) post(ctx context.Context, within time.Duration, method string, arg any, ret answer) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := c.exchange(limited, method, arg, ret)
	if limited.Err() != nil && ctx.Err() == nil && err != nil {
		return fmt.Errorf("%s: no answer within %v: %w", method, within, errdefs.ErrUnavailable)
	}
	if err != nil && !refused(err) {
		return fmt.Errorf("%s: %w", method, err)
	}
	return err
}

func (c *client) exchange(ctx context.Context, method string, arg any, ret answer) error {
	var body bytes.Buffer
	if arg != nil {
		if err := json.NewEncoder(&body).Encode(arg); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/"+method, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	resp, err := c.tr.RoundTrip(req) // no client: redirections are not followed
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, c.limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	case int64(len(b)) > c.limit:
		return fmt.Errorf("the answer has more than %d bytes", c.limit)
	case resp.StatusCode != http.StatusOK:
		return &refusedError{resp.StatusCode, method + ": " + said(b)}
	}
	return decode(b, ret)
}

// decode reads the first value; Docker takes no notice of what is behind it either.
func decode(b []byte, ret answer) error {
	switch err := json.NewDecoder(bytes.NewReader(b)).Decode(ret); {
	case errors.Is(err, io.EOF):
		return errors.New("the answer is empty (hint: success is {})")
	case err != nil:
		return fmt.Errorf("the answer is not understood: %w", err)
	}
	if text := ret.refusal(); text != "" {
		return &refusedError{http.StatusOK, "remote: " + plain(text)}
	}
	return nil
}

// said is the text of an answer with an error status.
func said(b []byte) string {
	var e struct{ Err string }
	if json.Unmarshal(b, &e) == nil && e.Err != "" {
		return plain(e.Err)
	}
	return plain(string(b))
}

// plain makes a plugin's words fit for logs and terminals.
func plain(s string) string {
	if len(s) > textLimit {
		s = s[:textLimit] + "…"
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?")))
}
