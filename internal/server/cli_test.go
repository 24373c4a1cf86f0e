package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/creack/pty"
)

// The API through the real docker CLI.

// findDocker is an error of class NotImplemented where there is none.
func findDocker() (string, error) {
	path, err := exec.LookPath("docker")
	if err != nil {
		return "", fmt.Errorf("no docker CLI on this machine: %w", errdefs.ErrNotImplemented)
	}
	return path, nil
}

// cli runs docker against a host.
type cli struct {
	t    *testing.T
	path string
	env  []string
}

func newCLI(t *testing.T, h *host) *cli {
	t.Helper()
	path, err := findDocker()
	if errdefs.IsNotImplemented(err) {
		t.Skip(err)
	}
	return &cli{t: t, path: path, env: append(os.Environ(), "DOCKER_HOST=unix://"+h.sock, "DOCKER_CONFIG="+t.TempDir(), "DOCKER_CONTEXT=", "DOCKER_CLI_HINTS=0")}
}

func (c *cli) run(stdin string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.env, strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok is run for a command that must succeed; it returns stdout.
func (c *cli) ok(args ...string) string {
	c.t.Helper()
	out, errs, code := c.run("", args...)
	if code != 0 {
		c.t.Fatalf("docker %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// fails is run for a command that must fail with a code and a text.
func (c *cli) fails(code int, text string, args ...string) {
	c.t.Helper()
	out, errs, got := c.run("", args...)
	if got != code || !strings.Contains(errs, text) {
		c.t.Errorf("docker %s: exit %d, want %d with %q\n%s%s", strings.Join(args, " "), got, code, text, out, errs)
	}
}

func TestDockerRun(t *testing.T) {
	h := serve(t, fake())
	d := newCLI(t, h)
	if out := d.ok("run", "--rm", "toolbox", "echo", "hello", "there"); out != "hello there\n" {
		t.Errorf("%q", out)
	}
	if out, errs, code := d.run("", "run", "--rm", "toolbox", "both"); out != "to stdout\n" || errs != "to stderr\n" || code != 0 {
		t.Errorf("%q %q %d", out, errs, code)
	}
	if out, _, code := d.run("typed in", "run", "--rm", "-i", "toolbox", "cat"); out != "typed in" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
	if _, _, code := d.run("", "run", "--rm", "toolbox", "exit", "42"); code != 42 {
		t.Error(code)
	}
	d.fails(127, "executable file not found", "run", "toolbox", "missing")
	if out := d.ok("run", "--rm", "--pull", "never", "toolbox", "echo", "again"); out != "again\n" {
		t.Errorf("%q", out)
	}
	d.fails(125, "pull access denied", "run", "absent", "echo")
	if out, errs, _ := d.run("", "run", "--rm", "new:1", "echo", "pulled"); out != "pulled\n" || !strings.Contains(errs, "Downloaded newer image for docker.io/library/new:1") {
		t.Errorf("%q %q", out, errs)
	}
}

// With a terminal on both ends nothing is framed.
func TestDockerTerminal(t *testing.T) {
	h := serve(t, fake())
	d := newCLI(t, h)
	cmd := exec.CommandContext(t.Context(), d.path, "run", "--rm", "-it", "toolbox", "echo", "hello")
	cmd.Env = d.env
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	got, _ := io.ReadAll(term) // ends with EIO when the CLI is gone
	if err := cmd.Wait(); err != nil || strings.TrimSpace(string(got)) != "hello" {
		t.Errorf("%q %v", got, err)
	}
}

func TestDockerLife(t *testing.T) {
	b := fake()
	h := serve(t, b)
	d := newCLI(t, h)
	d.ok("run", "-d", "--name", "web", "toolbox", "sleep")
	if out := d.ok("ps", "--format", "{{.Names}} {{.Image}} {{.State}}"); out != "web toolbox running\n" {
		t.Errorf("%q", out)
	}
	if out := d.ok("inspect", "-f", "{{.Name}} {{.State.Status}} {{.NetworkSettings.IPAddress}}", "web"); out != "/web running \n" {
		t.Errorf("%q", out)
	}
	if out := d.ok("exec", "web", "echo", "from exec"); out != "from exec\n" {
		t.Errorf("%q", out)
	}
	if out, _, _ := d.run("piped", "exec", "-i", "web", "cat"); out != "piped" {
		t.Errorf("%q", out)
	}
	if _, _, code := d.run("", "exec", "web", "exit", "9"); code != 9 {
		t.Error(code)
	}
	if out, errs, code := d.run("", "exec", "web", "missing"); code != 127 || !strings.Contains(out+errs, "executable file not found") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	d.ok("top", "web")
	d.ok("pause", "web")
	d.ok("unpause", "web")
	d.ok("rename", "web", "other")
	d.ok("update", "--memory", "64m", "other")
	d.ok("port", "other")
	d.ok("diff", "other")
	if out := d.ok("stats", "--no-stream", "--format", "{{.Name}}", "other"); !strings.Contains(out, "other") && out == "" {
		t.Errorf("%q", out)
	}
	d.fails(1, "container is running", "rm", "other")
	d.ok("kill", "other")
	if out := d.ok("wait", "other"); out != "137\n" {
		t.Errorf("%q", out)
	}
	d.ok("stop", "other") // 304
	d.ok("rm", "other")
	d.fails(1, "No such container: other", "stop", "other")
}

func TestDockerLogsAndEvents(t *testing.T) {
	h := serve(t, fake())
	d := newCLI(t, h)
	d.ok("run", "--name", "a", "toolbox", "both")
	if out, errs, _ := d.run("", "logs", "-f", "a"); out != "to stdout\n" || errs != "to stderr\n" {
		t.Errorf("%q %q", out, errs)
	}
	d.ok("rm", "a")
	out := d.ok("events", "--since", "1h", "--until", strconv.FormatInt(time.Now().Unix()+1, 10), "--filter", "container=a", "--format", "{{.Action}}")
	if got := strings.Join(strings.Fields(out), " "); got != "create start die destroy" {
		t.Error(got)
	}
	d.fails(1, "invalid filter", "ps", "--filter", "colour=blue")
}

func TestDockerAttach(t *testing.T) {
	h := serve(t, fake())
	d := newCLI(t, h)
	d.ok("run", "-d", "-i", "--name", "c", "toolbox", "cat")
	if out, _, code := d.run("through attach", "attach", "c"); out != "through attach" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
}

func TestDockerImages(t *testing.T) {
	b := fake()
	h := serve(t, b)
	d := newCLI(t, h)
	if out := d.ok("images", "--format", "{{.Repository}}:{{.Tag}}"); out != "toolbox:latest\n" {
		t.Errorf("%q", out)
	}
	d.ok("pull", "-q", "registry.test/some/image:1")
	d.fails(1, "unexpected digest", "pull", "registry.test/broken:1")
	d.fails(1, "pull access denied", "pull", "registry.test/absent:1")
	d.ok("push", "registry.test/some/image:1")
	d.ok("tag", "toolbox:latest", "reg.test/x/y:2")
	d.ok("history", "toolbox")
	d.ok("image", "inspect", "toolbox:latest")
	file := t.TempDir() + "/image.tar"
	d.ok("save", "-o", file, "toolbox:latest")
	d.ok("load", "-i", file)
	d.ok("import", file, "imported:1")
	d.ok("rmi", "toolbox:latest")
	d.ok("image", "prune", "-f")
	d.fails(1, "does not search registries", "search", "x")
	d.ok("create", "--name", "x", "toolbox", "sleep")
	d.ok("commit", "-m", "message", "x", "made:1")
	d.ok("cp", "x:/etc/file", t.TempDir()+"/file")
	d.ok("cp", file, "x:/tmp/")
	d.ok("export", "-o", t.TempDir()+"/x.tar", "x")
}

func TestDockerTheRest(t *testing.T) {
	b := fake()
	h := serve(t, b)
	d := newCLI(t, h)
	if out := d.ok("version", "--format", "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}"); out != "0.1 1.52 1.24\n" {
		t.Errorf("%q", out)
	}
	if out := d.ok("info", "--format", "{{.ServerVersion}} {{.Swarm.LocalNodeState}}"); out != "0.1 inactive\n" {
		t.Errorf("%q", out)
	}
	if out := d.ok("network", "ls", "--format", "{{.Name}} {{.Driver}}"); out != "bridge bridge\n" {
		t.Errorf("%q", out)
	}
	d.ok("network", "create", "--subnet", "10.1.0.0/24", "app")
	d.ok("network", "inspect", "bridge")
	d.ok("network", "connect", "--alias", "db", "bridge", "x")
	d.ok("network", "disconnect", "-f", "bridge", "x")
	d.fails(1, "network none not found", "network", "rm", "none")
	d.ok("network", "prune", "-f")
	d.ok("volume", "create", "v")
	d.ok("volume", "ls")
	d.ok("volume", "inspect", "v")
	d.fails(1, "volume is in use", "volume", "rm", "used")
	d.ok("volume", "prune", "-f")
	d.ok("container", "prune", "-f")
	d.ok("system", "df")
	d.ok("system", "df", "-v")
	d.ok("system", "prune", "-f")
	d.fails(1, "This node is not a swarm manager", "node", "ls")
	d.ok("plugin", "ls")
	out, errs, code := d.run("right\n", "login", "-u", "a", "--password-stdin", "registry.test")
	if code != 0 || !strings.Contains(out, "Login Succeeded") {
		t.Errorf("%q %q", out, errs)
	}
}

// The same CLI bound to old versions of the API.
func TestDockerOldVersions(t *testing.T) {
	for _, v := range []string{"1.24", "1.40", "1.43", "1.47", "1.50"} {
		t.Run(v, func(t *testing.T) {
			h := serve(t, fake())
			d := newCLI(t, h)
			d.env = append(d.env, "DOCKER_API_VERSION="+v)
			if out := d.ok("run", "--name", "x", "toolbox", "echo", v); out != v+"\n" {
				t.Errorf("%q", out)
			}
			if out := d.ok("ps", "-a", "--format", "{{.Names}}"); out != "x\n" {
				t.Errorf("%q", out)
			}
			d.ok("inspect", "x")
			d.ok("image", "inspect", "toolbox")
			d.ok("images")
			d.ok("info")
			d.ok("version")
			d.ok("network", "inspect", "bridge")
			if v != "1.24" { // these came with 1.25
				d.ok("system", "df", "-v")
				d.ok("system", "prune", "-f", "--volumes")
			}
			d.ok("rm", "x")
		})
	}
}
