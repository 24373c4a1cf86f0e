// Package crash kills isled at every failpoint of create, start, stop and rm,
// starts it again and compares the machine with the records: nothing is lost
// and nothing is left over.
package crash

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"isle/internal/failpoint"
	"isle/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	lab.Main(m, nil)
}

// TestKillAtEveryFailpoint drives one container through its life while isled
// dies at one point, and a witness that must not notice.
func TestKillAtEveryFailpoint(t *testing.T) {
	for _, point := range failpoint.All() {
		t.Run(strings.ReplaceAll(strings.TrimPrefix(point, "engine/"), "/", "-"), func(t *testing.T) { killAt(t, point) })
	}
	lab.Check(t)
}

func killAt(t *testing.T, point string) {
	d := lab.Run(t, "")
	d.Isle(t, "network", "create", "app")
	d.Isle(t, "run", "-d", "--name", "witness", "--network", "app", "-p", "8090:80", "isle/toolbox", "serve", ":80")
	awaitServing(t, d)
	before := d.Isle(t, "inspect", "-f", "{{.State.Pid}} {{.NetworkSettings.Networks.app.IPAddress}}", "witness")

	d.Stop()
	d.Env = []string{failpoint.Env + "=" + point}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if died := live(d); !died {
		t.Fatalf("isled did not reach %s", point)
	}
	d.Kill()
	serving(t, "while isled is dead")
	d.Env = nil
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}

	if after := d.Isle(t, "inspect", "-f", "{{.State.Pid}} {{.NetworkSettings.Networks.app.IPAddress}}", "witness"); after != before {
		t.Errorf("the witness changed: %q, was %q", after, before)
	}
	serving(t, "after the restart")
	usable(t, d)
	d.Isle(t, "rm", "-f", "-v", "witness")
	d.Isle(t, "network", "rm", "app")
	if vols := d.Isle(t, "volume", "ls", "-q"); vols != "" {
		t.Errorf("volumes left: %s", vols)
	}
	nothingLeft(t, d)
}

// live takes a container through its life and reports whether isled died.
func live(d *lab.Isled) bool {
	steps := [][]string{
		{"create", "--name", "victim", "--network", "app", "-p", "8091:80", "-v", "/anonymous", "isle/toolbox", "serve", ":80"},
		{"start", "victim"},
		{"stop", "-t", "2", "victim"},
		{"start", "victim"},
		{"rm", "-f", "-v", "victim"},
	}
	for _, s := range steps {
		d.Try(s...)
		if _, err := d.Try("version"); err != nil {
			return true
		}
	}
	// The end of an exit is worked off behind the answer.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := d.Try("version"); err != nil {
			return true
		}
	}
	return false
}

// usable checks that the victim is gone or whole: it can be started and
// removed, and its name and port are free afterwards.
func usable(t *testing.T, d *lab.Isled) {
	t.Helper()
	if names := d.Isle(t, "ps", "-a", "--format", "{{.Names}}"); strings.Contains(names, "victim") {
		if d.Isle(t, "inspect", "-f", "{{.State.Running}}", "victim") == "false" {
			d.Isle(t, "start", "victim")
		}
		d.Isle(t, "rm", "-f", "-v", "victim")
	}
	d.Isle(t, "run", "-d", "--name", "victim", "--network", "app", "-p", "8091:80", "isle/toolbox", "serve", ":80")
	d.Isle(t, "rm", "-f", "victim")
}

func nothingLeft(t *testing.T, d *lab.Isled) {
	t.Helper()
	var left string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if left = lab.Leftovers(d); left == "" {
			return
		}
	}
	t.Errorf("left over:\n%s", left)
}

func awaitServing(t *testing.T, d *lab.Isled) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if get() == nil {
			return
		}
	}
	t.Fatalf("the witness does not serve: %v\n%s", get(), d.Tail())
}

func serving(t *testing.T, when string) {
	t.Helper()
	if err := get(); err != nil {
		t.Errorf("%s the witness does not serve: %v", when, err)
	}
}

func get() error {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + lab.Host4 + ":8090/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), "hello") {
		return fmt.Errorf("got %q", b)
	}
	return nil
}

// TestHundredAtOnce starts and removes 100 containers at the same time.
func TestHundredAtOnce(t *testing.T) {
	d := lab.Run(t, "")
	d.Isle(t, "run", "--rm", "isle/toolbox", "true")
	each(100, func(i int) {
		if out, err := d.Try("run", "-d", "--name", fmt.Sprint("c", i), "-p", fmt.Sprintf("%d:80", 9000+i), "isle/toolbox", "sleep", "1000"); err != nil {
			t.Errorf("container %d: %v: %s", i, err, out)
		}
	})
	if n := len(strings.Fields(d.Isle(t, "ps", "-q"))); n != 100 {
		t.Errorf("%d containers run, want 100\n%s", n, d.Tail())
	}
	each(100, func(i int) {
		if out, err := d.Try("rm", "-f", fmt.Sprint("c", i)); err != nil {
			t.Errorf("container %d: %v: %s", i, err, out)
		}
	})
	nothingLeft(t, d)
	lab.Check(t)
}

func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}
