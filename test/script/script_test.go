// Package script runs testdata/*.txtar: whole sessions against a real isled,
// each once with isle and once with the stock docker CLI as $CLI. The scripts
// are meant to be read as examples.
package script

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"isle/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	lab.Main(m, nil)
}

func TestIsle(t *testing.T) { runAll(t, filepath.Join(lab.Bin(), "isle")) }

func TestDocker(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker CLI on this machine; scripts/test installs one")
	}
	runAll(t, docker)
}

func runAll(t *testing.T, cli string) {
	testscript.RunT(serial{t}, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return setup(env, cli) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"isled":      cmdIsled,
			"eventually": cmdEventually,
			"registry":   cmdRegistry,
			"pty":        cmdPty,
			"left":       cmdLeft,
			"plugins":    cmdPlugins,
		},
	})
	lab.Check(t)
}

// serial runs scripts one after another: they share one machine.
type serial struct{ *testing.T }

func (t serial) Parallel()     {}
func (t serial) Verbose() bool { return testing.Verbose() }
func (t serial) Run(name string, fn func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { fn(serial{t}) })
}

type daemonKey struct{}

func setup(env *testscript.Env, cli string) error {
	dir, err := os.MkdirTemp("/tmp", "isle-script-")
	if err != nil {
		return err
	}
	d, err := lab.NewIsled(dir, "[registries.\"127.0.0.1:5000\"]\ninsecure = true\n")
	if err != nil {
		return err
	}
	env.Values[daemonKey{}] = d
	running := &[]net.Listener{}
	env.Values[pluginsKey{}] = running
	t := env.T()
	env.Defer(func() {
		for _, l := range *running {
			_ = l.Close()
		}
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
	})
	env.Setenv("CLI", cli)
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("DOCKER_HOST", "unix://"+d.Socket)
	env.Setenv("DOCKER_CLI_HINTS", "false")
	env.Setenv("PATH", lab.Bin()+":"+os.Getenv("PATH"))
	env.Setenv("HOST4", lab.Host4)
	env.Setenv("LAN4", lab.LAN4)
	env.Setenv("RUN", filepath.Join(dir, "run"))
	env.Setenv("DATA", filepath.Join(dir, "data"))
	return d.Start()
}

func daemon(ts *testscript.TestScript) *lab.Isled { return ts.Value(daemonKey{}).(*lab.Isled) }

// isled start|stop|kill
func cmdIsled(ts *testscript.TestScript, neg bool, args []string) {
	d := daemon(ts)
	switch strings.Join(args, " ") {
	case "start":
		ts.Check(d.Start())
	case "stop":
		d.Stop()
	case "kill":
		d.Kill()
	default:
		ts.Fatalf("usage: isled start|stop|kill")
	}
}

// eventually STDOUT-SUBSTRING PROGRAM ARG… runs the program until it succeeds
// and its output has the text, for 20 seconds at most.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually TEXT PROGRAM ARG...")
	}
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+ts.Getenv("DOCKER_HOST"), "HOME="+ts.Getenv("HOME"))
		out, err := cmd.CombinedOutput()
		if err == nil && strings.Contains(string(out), args[0]) != neg {
			return
		}
		last = fmt.Sprintf("%v\n%s", err, out)
	}
	ts.Fatalf("never saw %q from %q; last: %s\n%s", args[0], args[1:], last, daemon(ts).Tail())
}

// left fails when something of Isle is on the machine that no container needs.
func cmdLeft(ts *testscript.TestScript, neg bool, args []string) {
	var all string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if all = lab.Leftovers(daemon(ts)); all == "" {
			return
		}
	}
	ts.Fatalf("left behind:\n%s", all)
}
