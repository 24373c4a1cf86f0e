package cluster

import (
	"strings"
	"testing"
)

// TestOverlay: a network that one host makes is on the others too; containers on it find
// each other by name, and what is gone is gone everywhere.
func TestOverlay(t *testing.T) {
	t.Parallel()
	h1, h2 := newHost(t, 4), newHost(t, 5)
	h1.refused("isle cluster init", "network", "create", "-d", "overlay", "early")
	h1.Isle(t, "cluster", "init", "--name", "h4")
	h2.join(h1)
	h1.Isle(t, "network", "create", "-d", "overlay", "app")
	h2.eventually("the network is there", func() bool {
		out, err := h2.Try("network", "ls", "-q", "--filter", "name=app")
		return err == nil && strings.TrimSpace(out) != ""
	})
	h1.Isle(t, "run", "-d", "--name", "web", "--network", "app", "isle/toolbox", "serve", ":80")
	h2.eventually("it answers by its name", func() bool {
		out, err := h2.Try("run", "--rm", "--network", "app", "isle/toolbox", "get", "http://web/")
		return err == nil && out != ""
	})
	h2.Isle(t, "run", "-d", "--name", "client", "--network", "app", "isle/toolbox", "sleep", "1000")
	h2.Isle(t, "exec", "client", "get", "http://web/")
	h1.eventually("inspect shows the other host's container", func() bool {
		out, err := h1.Try("network", "inspect", "--verbose", "app")
		return err == nil && strings.Contains(out, `"Container": "client"`)
	})
	h1.Isle(t, "rm", "-f", "web")
	h2.eventually("its name is gone", func() bool { _, err := h2.Try("exec", "client", "get", "http://web/"); return err != nil })
	h1.refused("in use", "network", "rm", "app")
	h2.refused("on network", "cluster", "leave")
	h2.Isle(t, "rm", "-f", "client")
	h1.eventually("the network can go", func() bool { _, err := h1.Try("network", "rm", "app"); return err == nil })
	h2.eventually("it is gone here too", func() bool {
		out, err := h2.Try("network", "ls", "-q", "--filter", "name=app")
		return err == nil && strings.TrimSpace(out) == ""
	})
}
