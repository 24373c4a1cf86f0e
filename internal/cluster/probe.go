package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// probeWithin is how long it may take to find out why a member does not answer.
const probeWithin = 500 * time.Millisecond

// refusal is what a member says without words: it ends a connection when it has seen the
// certificate.
const refusal = "it refuses this host's certificate"

// reason is why a member does not answer: the client only knows that it does not. In TLS
// 1.3 a server looks at the certificate after the client is done, so a first byte is
// waited for.
func (s *session) reason(ctx context.Context, at string, err error) string {
	u, perr := url.Parse(at)
	if perr != nil || s.self.External {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	conf := s.identity.ClientTLS()
	conf.NextProtos = []string{"h2"}
	conn, derr := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	if derr != nil {
		return derr.Error()
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(probeWithin))
	_, rerr := conn.Read(make([]byte, 1))
	if errors.Is(rerr, io.EOF) || rerr != nil && strings.Contains(rerr.Error(), "remote error: tls: ") {
		return fmt.Sprintf("%s: %v", refusal, rerr)
	}
	return err.Error()
}
