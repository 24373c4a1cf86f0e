package shim

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

// invokeLimit is how long a runtime may take: hooks included, yet not forever.
const invokeLimit = 2 * time.Minute

// oci runs an OCI runtime for one container.
type oci struct {
	reaper *reaper
	rt     wire.Runtime
	dir    string // where its log goes
}

// run runs the runtime to its end. files are its descriptors 0 to 2.
func (o oci) run(files [3]int, args ...string) error {
	log := filepath.Join(o.dir, "runtime-"+args[0]+".log")
	defer os.Remove(log)
	attr := &syscall.ProcAttr{Dir: o.dir, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, ended, err := o.reaper.start(o.argv(log, args), attr)
	if err != nil {
		return err
	}
	late := time.NewTimer(invokeLimit)
	defer late.Stop()
	select {
	case code := <-ended:
		if code == 0 {
			return nil
		}
		return o.failure(args[0], log, code)
	case <-late.C:
		unix.Kill(pid, unix.SIGKILL)
		<-ended
		return wire.Errorf(wire.Unknown, "%s %s has not ended after %v", o.rt.Name, args[0], invokeLimit)
	}
}

func (o oci) argv(log string, args []string) []string {
	argv := append([]string{o.rt.Path}, o.rt.Args...)
	argv = append(argv, "--root", o.rt.Root, "--log", log, "--log-format", "json")
	if o.rt.SystemdCgroup {
		argv = append(argv, "--systemd-cgroup")
	}
	return append(argv, args...)
}

// quiet runs the runtime with nothing connected.
func (o oci) quiet(args ...string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	fd := int(null.Fd())
	return o.run([3]int{fd, fd, fd}, args...)
}

// failure is the runtime's last word in its log, in words that Docker's
// clients know: they derive the exit codes 126 and 127 from them.
func (o oci) failure(verb, log string, code int) error {
	text := lastMessage(log)
	if text == "" {
		text = o.rt.Name + " " + verb + ": exit status " + strconv.Itoa(code)
	}
	text, class := clean(text)
	switch verb {
	case "create":
		text = "failed to create task for container: failed to create shim task: OCI runtime create failed: " + text + ": unknown"
	case "exec":
		text = "OCI runtime exec failed: " + text + ": unknown"
	}
	return &wire.Error{Class: class, Text: text}
}

func lastMessage(log string) (text string) {
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		var m struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &m) == nil && m.Msg != "" && (text == "" || m.Level == "error" || m.Level == "fatal") {
			text = m.Msg
		}
	}
	return text
}

var notInPath = regexp.MustCompile("executable file [`']([^`']*)[`'] not found(?: in \\$PATH)?(?:: No such file or directory)?")

// clean puts crun's words in runc's.
func clean(text string) (string, string) {
	text = notInPath.ReplaceAllString(text, `unable to start container process: exec: "$1": executable file not found in $$PATH`)
	if strings.HasPrefix(text, "open executable: Operation not permitted") {
		text = "unable to start container process: exec: permission denied"
	}
	for _, words := range []string{"No such file or directory", "Permission denied", "Is a directory", "Not a directory"} {
		text = strings.ReplaceAll(text, words, strings.ToLower(words))
	}
	for _, users := range []string{"executable file not found", "no such file or directory", "permission denied", "is a directory", "not a directory"} {
		if strings.Contains(text, users) {
			return text, wire.Invalid
		}
	}
	return text, wire.Unknown
}
