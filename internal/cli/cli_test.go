package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/spf13/cobra"
)

// The test program is isle when it is called so.
func TestMain(m *testing.M) {
	if os.Getenv("BE_ISLE") != "" {
		os.Exit(Main(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

type result struct {
	out, err string
	status   int
}

// isleWith runs isle with a home of its own, and env on top.
func isleWith(t *testing.T, env []string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{"BE_ISLE=1", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// daemon answers on a socket of its own and says who it is in its errors.
func daemon(t *testing.T, name string, handler http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Api-Version", "1.52")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
		case handler != nil:
			handler(w, r)
		default:
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"message":"this is `+name+`"}`)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "unix://" + path
}

func TestHostPrecedence(t *testing.T) {
	t.Parallel()
	flag, isle, docker, ctx := daemon(t, "flag", nil), daemon(t, "isle", nil), daemon(t, "docker", nil), daemon(t, "context", nil)
	home := t.TempDir()
	make := isleWith(t, []string{"HOME=" + home}, "context", "create", "there", "--docker", "host="+ctx)
	if make.status != 0 {
		t.Fatal(make.err)
	}
	all := []string{"HOME=" + home, "ISLE_HOST=" + isle, "DOCKER_HOST=" + docker, "DOCKER_CONTEXT=there"}
	for _, c := range []struct {
		who  string
		env  []string
		args []string
	}{
		{"flag", all, []string{"--host", flag}},
		{"context", all, []string{"--context", "there"}},
		{"isle", all, nil},
		{"docker", append([]string{all[0]}, all[2:]...), nil},
		{"context", []string{all[0], all[3]}, nil},
	} {
		if got := isleWith(t, c.env, append(c.args, "ps")...); !strings.Contains(got.err, "this is "+c.who) || got.status != 1 {
			t.Errorf("want %s: %+v", c.who, got)
		}
	}
}

func TestDefaultHostIsOurs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		opts        cliflags.ClientOptions
		env, expect string
	}{
		{"nothing said", cliflags.ClientOptions{}, "", DefaultHost},
		{"host said", cliflags.ClientOptions{Hosts: []string{"tcp://h:1"}}, "", "tcp://h:1"},
		{"DOCKER_HOST said", cliflags.ClientOptions{}, "tcp://d:1", ""},
	} {
		c.opts.ConfigDir = t.TempDir()
		dockerCLI, err := command.NewDockerCli(command.WithCombinedStreams(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		getenv := func(k string) string { return map[string]string{"DOCKER_HOST": c.env}[k] }
		if err := dockerCLI.Initialize(&c.opts, defaultHost(&c.opts, getenv)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.opts.Hosts, ""); got != c.expect {
			t.Errorf("%s: %q, want %q", c.name, got, c.expect)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	socket := "unix://" + t.TempDir() + "/none.sock"
	for _, c := range []struct {
		args   []string
		status int
	}{{[]string{"ps"}, 1}, {[]string{"run", "x"}, 125}, {[]string{"info"}, 1}, {[]string{"version"}, 1}, {[]string{"exec", "x", "true"}, 1}, {[]string{"publish", "x", "80"}, 1}, {[]string{"network", "doctor"}, 1}} {
		got := isleWith(t, []string{"ISLE_HOST=" + socket}, c.args...)
		if !strings.HasPrefix(got.err, "cannot connect to isled at "+socket+": is it running?\nhint: ") || got.status == 0 {
			t.Errorf("%q: status %d, %s", c.args, got.status, got.err)
		}
		if strings.Count(got.err, "cannot connect") != 1 || strings.Contains(got.err, "docker") && !strings.Contains(got.err, "DOCKER_HOST") {
			t.Errorf("%q: %s", c.args, got.err)
		}
	}
}

func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	got := explain(errors.New("permission denied while trying to connect to the docker API at unix:///run/isle/isle.sock"))
	if !strings.HasPrefix(got, "cannot connect to isled at unix:///run/isle/isle.sock: permission denied\nhint: use sudo") {
		t.Error(got)
	}
}

func TestExitStatusOfRun(t *testing.T) {
	t.Parallel()
	for want, message := range map[int]string{
		125: "no such network",
		126: "exec: \\\"/\\\": permission denied",
		127: "exec: \\\"x\\\": executable file not found in $PATH",
	} {
		host := daemon(t, "isle", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/containers/create") {
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, `{"Id":"0123"}`)
				return
			}
			if strings.HasSuffix(r.URL.Path, "/start") {
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, `{"message":"`+message+`"}`)
				return
			}
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"none"}`)
		})
		got := isleWith(t, []string{"ISLE_HOST=" + host}, "run", "-d", "image")
		if got.status != want {
			t.Errorf("%s: status %d, want %d: %s", message, got.status, want, got.err)
		}
		if strings.Contains(got.err, "docker") || !strings.Contains(got.err, "Run 'isle run --help'") {
			t.Errorf("the text is not ours: %s", got.err)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"nonsense", 1, "isle: unknown command: isle nonsense"},
		{"run --nonsense", 125, "unknown flag: --nonsense"},
		{"swarm init", 1, "isle swarm: Isle has no swarm mode"},
		{"build .", 1, "isle build: building images comes in a later release\nhint: "},
		{"image build .", 1, "isle image build: building images comes"},
		{"info --format {{.Nope", 64, "template parsing error"},
	} {
		got := isleWith(t, nil, strings.Fields(c.args)...)
		if got.status != c.status || !strings.Contains(got.err, c.want) {
			t.Errorf("isle %s: status %d, %q", c.args, got.status, got.err)
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	host := daemon(t, "isle", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"ServerVersion":"0.1.0","DefaultRuntime":"crun","Runtimes":{"crun":{},"runc":{}},"CgroupDriver":"cgroupfs","CgroupVersion":"1",
			"Labels":["isle.probe.cgroup-bpf=yes","rack=3"],"Plugins":{"Network":["bridge","host"],"Log":["json-file"]},"MemTotal":1073741824}`)
	})
	got := isleWith(t, []string{"ISLE_HOST=" + host}, "system", "info")
	for _, want := range []string{" Isle Version: 0.1.0\n", " Runtime: crun (of: crun runc)\n", " Control Groups: version 1, driver cgroupfs\n",
		" Kernel Probes:\n  cgroup-bpf: yes\n", " Labels:\n  rack=3\n", " Total Memory: 1GiB\n"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("%q is missing in:\n%s%s", want, got.out, got.err)
		}
	}
	if got := isleWith(t, []string{"ISLE_HOST=" + host}, "info", "--format", "{{.ServerVersion}} {{.ClientInfo.Host}}"); got.out != "0.1.0 "+host+"\n" {
		t.Errorf("%+v", got)
	}
}

func TestTextsAreOurs(t *testing.T) {
	t.Parallel()
	dockerCLI, err := command.NewDockerCli(command.WithCombinedStreams(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, text := range []string{cmd.Use, cmd.Short, cmd.Long, cmd.Example, cmd.Annotations["aliases"]} {
			if strings.Contains(text, "docker ") {
				t.Errorf("%s: %q", cmd.CommandPath(), text)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(dockerCLI).Command)
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := isleWith(t, nil, "completion", shell); got.status != 0 || !strings.Contains(got.out, "isle") {
			t.Errorf("%s: %d %s", shell, got.status, got.err)
		}
	}
}

// A plugin must not be executed: neither by help nor by anything else.
func TestNoPluginIsRun(t *testing.T) {
	t.Parallel()
	home, mark := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	dir := filepath.Join(home, ".docker", "cli-plugins")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-compose"), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"info"}, {"compose"}, {"__complete", ""}} {
		isleWith(t, []string{"HOME=" + home}, args...)
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("isle %q ran a plugin", args)
		}
	}
}

// TestGoSpeaks: the library hands on what Go's parsers say of an argument.
func TestGoSpeaks(t *testing.T) {
	t.Parallel()
	_, err := netip.ParsePrefix("banana")
	if got, want := explain(err), `"banana" is not a prefix (hint: write it like 192.0.2.0/24 or 2001:db8::/64)`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{0: nil, 1: errors.New("x"), 42: cli.StatusError{StatusCode: 42}} {
		if got := report(io.Discard, err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
