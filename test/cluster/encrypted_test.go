package cluster

import (
	"strings"
	"testing"
)

// TestEncrypted: an encrypted network between two hosts, also after isled was killed and
// started again on either; and inspect tells the hosts.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	h1, h2 := newHost(t, 6), newHost(t, 7)
	h1.Isle(t, "cluster", "init", "--name", "h6")
	h2.join(h1)
	h1.Isle(t, "network", "create", "-d", "overlay", "-o", "encrypted", "secret")
	h2.eventually("the network is there", func() bool {
		out, err := h2.Try("network", "ls", "-q", "--filter", "name=secret")
		return err == nil && strings.TrimSpace(out) != ""
	})
	h1.Isle(t, "run", "-d", "--name", "web", "--network", "secret", "isle/toolbox", "serve", ":80")
	h2.Isle(t, "run", "-d", "--name", "client", "--network", "secret", "isle/toolbox", "sleep", "1000")
	reaches := func() bool { _, err := h2.Try("exec", "client", "get", "http://web/"); return err == nil }
	h2.eventually("it answers by its name", reaches)
	h2.Kill()
	h2.must(h2.Start())
	h2.eventually("it answers after a crash of isled", reaches)
	h1.Kill()
	h1.must(h1.Start())
	h2.eventually("it answers after a crash of the other isled", reaches)
	h1.Isle(t, "run", "-d", "--name", "more", "--network", "secret", "isle/toolbox", "serve", ":80")
	h2.eventually("what is new since is known", func() bool { _, err := h2.Try("exec", "client", "get", "http://more/"); return err == nil })
	if out := h1.Isle(t, "network", "inspect", "secret"); !strings.Contains(out, `"Peers"`) || !strings.Contains(out, "h7") {
		t.Errorf("it does not tell its hosts: %s", out)
	}
}
