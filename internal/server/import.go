package server

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
)

// importSource is the archive to import: the body for "-", else what a web
// server has at a URL.
func importSource(r *http.Request, src string, p *progress) (io.ReadCloser, error) {
	if src == "-" {
		return upload{r.Body}, nil
	}
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	u, err := url.Parse(src)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("import from %q: not a URL of http or https", src)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, invalid("import from %q: %w", u.Redacted(), err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, invalid("import from %s: the server answered %s", u.Redacted(), resp.Status)
	}
	p.send(jsonstream.Message{Status: "Downloading from " + u.Redacted()})
	return resp.Body, nil
}
