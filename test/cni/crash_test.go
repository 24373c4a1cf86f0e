package cni

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestKilledAtWork: isled dies at any moment of an ADD or a DEL. What the runtime does
// then, DEL, leaves nothing; and nothing that belongs to another container is lost.
func TestKilledAtWork(t *testing.T) {
	r := start(t)
	r.isled.Isle(t, "network", "create", "pods")
	stays := r.namespace("stays")
	if code, out := r.plugin("ADD", "stays", stays, "eth0", isle); code != 0 {
		t.Fatal(out)
	}
	for _, command := range []string{"ADD", "DEL"} {
		for i := range 12 {
			ns, id := r.namespace(fmt.Sprintf("%s-%d", strings.ToLower(command), i)), fmt.Sprintf("%s-%d", command, i)
			if code, out := r.plugin("ADD", id, ns, "eth0", isle); code != 0 {
				t.Fatal(out)
			} else if command == "ADD" {
				r.plugin("DEL", id, ns, "eth0", isle)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.plugin(command, id, ns, "eth0", isle)
			}()
			time.Sleep(time.Duration(i) * 2 * time.Millisecond)
			r.isled.Kill()
			<-done
			if err := r.isled.Start(); err != nil {
				t.Fatal(err)
			}
			if code, out := r.plugin("DEL", id, ns, "eth0", isle); code != 0 {
				t.Errorf("DEL after a crash in %s: %s", command, out)
			}
			if out := r.shell("ip netns exec %s-%d ip -o link", strings.ToLower(command), i); strings.Contains(out, "eth0") {
				t.Errorf("left by %s %d: %s", command, i, out)
			}
		}
	}
	r.shell("ip netns exec stays isle-toolbox dig +short stays @127.0.0.11 | grep .")
	if code, out := r.plugin("DEL", "stays", stays, "eth0", isle); code != 0 {
		t.Error(out)
	}
	r.isled.Isle(t, "network", "rm", "pods")
	r.clean()
}
