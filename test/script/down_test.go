package script

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/test/lab"
)

// TestDown: scripts/down leaves the machine as it was before Isle came, also when
// isled is dead and cannot be asked to remove its containers.
func TestDown(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprintf("isled dead %t", dead), func(t *testing.T) {
			overlay(t, "/usr", "/etc")
			before := machine(t)
			d := up(t)
			populate(t, d)
			if dead {
				d.Kill()
			}
			docker := foreignDaemon(t)
			script(t, "down --yes", "DOCKER_HOST=unix://"+docker.path)
			same(t, before)
			if docker.asked.Load() > 0 {
				t.Error("the daemon of DOCKER_HOST was asked; it is not Isle's")
			}
			for _, p := range append(programs, filepath.Join(d.Dir, "run")) {
				if _, err := os.Stat(p); err == nil {
					t.Errorf("%s is still there", p)
				}
			}
		})
	}
	lab.Check(t)
}

// TestUpAndDown: the two as a newcomer runs them, with the demonstration.
func TestUpAndDown(t *testing.T) {
	overlay(t, "/usr", "/etc", "/var")
	before := machine(t)
	d := configured(t)
	docker := foreignDaemon(t)
	env := "DOCKER_HOST=unix://" + docker.path
	script(t, "up", env)
	if out := d.Isle(t, "run", "--rm", "--network", "demo", "isle/toolbox", "get", "http://hello"); !strings.HasPrefix(out, "hello from") {
		t.Errorf("the demonstration is not there: %s", out)
	}
	script(t, "up", env) // once more is no error
	script(t, "down --yes", env)
	same(t, before)
	if docker.asked.Load() > 0 {
		t.Error("the daemon of DOCKER_HOST was asked; it is not Isle's")
	}
}

// TestDownLeavesOthers: a link with a name as Isle would choose it is not Isle's
// for that.
func TestDownLeavesOthers(t *testing.T) {
	overlay(t, "/usr", "/etc")
	d := up(t)
	d.Isle(t, "network", "ls") // it listens before it has made its bridge
	d.Stop()
	shell(t, "ip link set isle0 group 0 && ip link add isle9 type bridge") // as if somebody else had made them
	t.Cleanup(func() { shell(t, "ip link del isle0; ip link del isle9") })
	script(t, "down --yes")
	shell(t, "ip link show isle0 && ip link show isle9")
}

var programs = []string{"/usr/local/bin/isle", "/usr/local/bin/isled", "/usr/local/bin/isle-shim", "/usr/local/bin/isle-toolbox"}

// overlay makes changes below dirs vanish with the test.
func overlay(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		layer, err := os.MkdirTemp("/run", "layer-") // a tmpfs of this test
		if err != nil {
			t.Fatal(err)
		}
		shell(t, "mkdir %[1]s/upper %[1]s/work && mount -t overlay overlay -o lowerdir=%[2]s,upperdir=%[1]s/upper,workdir=%[1]s/work %[2]s", layer, dir)
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH); os.RemoveAll(layer) })
	}
}

// configured is an isled that is to run with a configuration of its own, where
// the scripts look for it.
func configured(t *testing.T) *lab.Isled {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "isle-down-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := lab.NewIsled(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	shell(t, "mkdir -p /etc/isle && cp %s/isled.toml /etc/isle/", dir)
	return d
}

// up is what scripts/up leaves: programs, configuration, an isled that answers.
func up(t *testing.T) *lab.Isled {
	t.Helper()
	d := configured(t)
	for _, p := range programs {
		shell(t, "install -D %s/%s %s", lab.Bin(), filepath.Base(p), p)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	shell(t, "pgrep -x isled >%s/run/isled.pid", d.Dir)
	return d
}

// populate makes one of everything that containers bring along.
func populate(t *testing.T, d *lab.Isled) {
	t.Helper()
	for _, args := range []string{
		"network create --ipv6 app",
		"run -d --name web --network app -p 8080:80 -p 127.0.0.1:8081:81 -p 5353:53/udp --shm-size 8m isle/toolbox sleep 1000",
		"run -d --name paused -v data:/data isle/toolbox sleep 1000",
		"run -d --network container:web isle/toolbox sleep 1000",
		"run -d --network host isle/toolbox sleep 1000",
		"network connect bridge web",
		"pause paused",
	} {
		d.Isle(t, strings.Fields(args)...)
	}
}

func script(t *testing.T, line string, env ...string) {
	t.Helper()
	args := strings.Fields(line)
	cmd := exec.Command("../../scripts/"+args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), "PATH=/usr/local/bin:"+os.Getenv("PATH")), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/%s: %v\n%s", line, err, out)
	}
}

// machine is everything by which Isle could be noticed, in words.
func machine(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for what, command := range map[string]string{
		"links":     "ip -br link",
		"addresses": "ip -br addr",
		"routes":    "ip route show table all type unicast; ip -6 route show table main; ip rule; ip -6 rule",
		"rules":     "nft list ruleset",
		"processes": "ps -eo args= | grep -v '^ps \\|^sh -c \\|^grep \\|^sort'",
		"mounts":    "cut -d' ' -f4- /proc/self/mountinfo",
		"cgroups":   "find /sys/fs/cgroup -path '*" + lab.CgroupParent() + "/*' -type d",
		"eBPF":      "find /sys/fs/bpf",
		"run":       "find /run -name '*isle*' -not -path '/run/layer-*'",
	} {
		out, err := exec.Command("sh", "-c", command+" | sort").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		all[what] = string(out)
	}
	return all
}

// same waits until the machine is as it was: what ends, ends beside.
func same(t *testing.T, before map[string]string) {
	t.Helper()
	var now map[string]string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if now = machine(t); fmt.Sprint(now) == fmt.Sprint(before) {
			return
		}
	}
	for what, was := range before {
		if is := now[what]; is != was {
			t.Errorf("%s: more %q, less %q", what, lessLines(is, was), lessLines(was, is))
		}
	}
}

func lessLines(a, b string) []string {
	have := strings.Split(b, "\n")
	return slices.DeleteFunc(strings.Split(a, "\n"), func(l string) bool { return slices.Contains(have, l) })
}

// listener counts who asks it.
type listener struct {
	path  string
	asked atomic.Int32
}

func foreignDaemon(t *testing.T) *listener {
	t.Helper()
	l := &listener{path: filepath.Join(t.TempDir(), "docker.sock")}
	sock, err := net.Listen("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	go func() {
		for c, err := sock.Accept(); err == nil; c, err = sock.Accept() {
			l.asked.Add(1)
			io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	return l
}

func shell(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}
