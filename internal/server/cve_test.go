package server_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// CVE-2026-97032, CVE-2026-78659, CVE-2026-78663, CVE-2026-78669: HTTP/2 is not
// spoken, whichever way it is asked for.
func TestCVE_2026_97032_NoHTTP2(t *testing.T) {
	for name, request := range map[string]string{
		"at once":    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"by upgrade": "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
		"grpc":       "POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
		"session":    "POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
	} {
		h := serve(t, fake())
		c := h.dial()
		_, _ = fmt.Fprint(c, request)
		answer, _ := io.ReadAll(c)
		c.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 ") || strings.HasPrefix(string(answer), "HTTP/1.1 101") {
			t.Errorf("%s: %q", name, answer)
		}
	}
}
