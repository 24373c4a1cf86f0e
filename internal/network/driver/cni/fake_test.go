package cni_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"isle/internal/kernel/kerneltest"
)

// The plugins of these tests are this program under other names: links to it in a
// directory of plugins. What each was called with is a line of a log.

func TestMain(m *testing.M) {
	if act, ok := fakes[filepath.Base(os.Args[0])]; ok {
		os.Exit(plugin(act))
	}
	kerneltest.Main(m)
}

// call is what a plugin was started with.
type call struct {
	verb, id, netns, ifname string
	conf                    conf
	raw                     string
}

// conf is what the fakes read of their configuration.
type conf struct {
	Log           string          `json:"log"`
	Result        json.RawMessage `json:"result"`
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	PrevResult    json.RawMessage `json:"prevResult"`
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Valid         json.RawMessage `json:"cni.dev/valid-attachments"`
	Fail          []string        `json:"fail"` // verbs
}

// note writes a line into the log.
func (c call) note(s string) {
	if c.conf.Log == "" {
		return
	}
	f, err := os.OpenFile(c.conf.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(99)
	}
	defer f.Close()
	fmt.Fprintln(f, s)
}

const good = `{"interfaces":[{"name":"hostside"},{"name":"eth0","sandbox":"/ns","mac":"02:00:00:00:00:07"}],` +
	`"ips":[{"version":"4","interface":1,"address":"10.9.0.7/24","gateway":"10.9.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`

// fakes are the plugins by name: what each does on ADD, or on all verbs where it says so.
var fakes = map[string]func(c call) int{
	"first": answer, "second": answer, "last": answer,
	"hang": func(c call) int {
		if c.verb != "ADD" {
			return answer(c)
		}
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		c.note("pid " + strconv.Itoa(os.Getpid()))
		child := sleeper()
		child.Stdout = os.Stdout
		if err := child.Start(); err == nil {
			c.note("pid " + strconv.Itoa(child.Process.Pid))
		}
		time.Sleep(time.Hour)
		return 0
	},
	"rubbish":   onAdd(func(call) int { fmt.Print("hello, world"); return 0 }),
	"number":    onAdd(func(call) int { fmt.Print("7"); return 0 }),
	"otherjson": onAdd(func(call) int { fmt.Print(`{"cniVersion":"9.9.9"}`); return 0 }),
	"silent":    onAdd(func(call) int { return 0 }),
	"coded": onAdd(func(call) int {
		fmt.Print(`{"cniVersion":"1.0.0","code":11,"msg":"no address is left","details":"of 10.9.0.0/24"}`)
		return 1
	}),
	"badconf": onAdd(func(call) int { fmt.Print(`{"code":7,"msg":"field x is missing"}`); return 1 }),
	"stderr":  onAdd(func(call) int { fmt.Fprint(os.Stderr, "panic:\x1b[31m all\nis lost"); return 2 }),
	"mute":    onAdd(func(call) int { return 3 }),
	"killed": onAdd(func(call) int {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
		return 0
	}),
	"flood": onAdd(func(call) int {
		signal.Ignore(syscall.SIGPIPE)
		for {
			_, _ = os.Stdout.WriteString(strings.Repeat("x", 1<<16))
		}
	}),
	"loud": onAdd(func(call) int {
		_, _ = os.Stderr.WriteString(strings.Repeat("y", 1<<22))
		return 1
	}),
	"daemon":  onAdd(func(c call) int { return background(c, os.Stdout) }),
	"service": onAdd(func(c call) int { return background(c, nil) }),
	"old": func(c call) int {
		if c.verb == "VERSION" {
			fmt.Print(`{"cniVersion":"0.3.1","supportedVersions":["0.3.0","0.3.1"]}`)
		}
		return 0
	},
	"litter": litter, "picky": answer, "sleeper": func(call) int { time.Sleep(time.Minute); return 0 },
}

// onAdd answers all other verbs well.
func onAdd(act func(call) int) func(call) int {
	return func(c call) int {
		if c.verb == "ADD" {
			return act(c)
		}
		return answer(c)
	}
}

// answer is a plugin that does as it should, except where its configuration says fail.
func answer(c call) int {
	for _, v := range c.conf.Fail {
		if v == c.verb {
			fmt.Printf(`{"code":50,"msg":"%s is refused"}`, v)
			return 1
		}
	}
	switch c.verb {
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}`)
	case "ADD":
		out := c.conf.Result
		if out == nil {
			out = c.conf.PrevResult
		}
		if out == nil {
			out = json.RawMessage(good)
		}
		os.Stdout.Write(out)
	}
	return 0
}

// background leaves a process behind, which has stdout as its own or none.
func background(c call, stdout *os.File) int {
	child := sleeper()
	if stdout != nil {
		child.Stdout = stdout
	}
	if err := child.Start(); err != nil {
		return 9
	}
	c.note("pid " + strconv.Itoa(child.Process.Pid))
	return answer(c)
}

func sleeper() *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		os.Exit(98)
	}
	return &exec.Cmd{Path: self, Args: []string{"sleeper"}}
}

func plugin(act func(call) int) int {
	c := call{verb: os.Getenv("CNI_COMMAND"), id: os.Getenv("CNI_CONTAINERID"), netns: os.Getenv("CNI_NETNS"), ifname: os.Getenv("CNI_IFNAME")}
	name := filepath.Base(os.Args[0])
	if name == "picky" && c.verb == "ADD" { // it does not read what it is told
		os.Stdout.WriteString(good)
		return 0
	}
	if name != "sleeper" {
		b, err := io.ReadAll(os.Stdin)
		if err != nil || json.Unmarshal(b, &c.conf) != nil {
			return 97
		}
		c.raw = string(b)
	}
	c.note(strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s", name, c.verb, c.netns, c.ifname, c.conf.RuntimeConfig, c.conf.Valid)))
	if os.Getenv("ISLE_SECRET") != "" || os.Getenv("HOME") != "" {
		c.note("environment: " + strings.Join(os.Environ(), " "))
	}
	return act(c)
}

// gone reports whether a process has ended, or soon does.
func gone(pid int) bool {
	for range 1000 {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(after, "Z")
}
