package host_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/host"
)

func do(t *testing.T, f applet.Func, in string, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	err := f(context.Background(), applet.IO{In: strings.NewReader(in), Out: &out, Err: &errs}, args)
	return out.String(), err
}

func TestCommands(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		f    applet.Func
		args string
		want string
	}{
		{"date", host.Date, "-u -d @0 +%F_%T_%s_%Z", "1970-01-01_00:00:00_0_UTC\n"},
		{"date -I", host.Date, "-u -I -d @1", "1970-01-01T00:00:01Z\n"},
		{"hostname", host.Hostname, "", name + "\n"},
		{"id -u", host.ID, "-u", strconv.Itoa(os.Geteuid()) + "\n"},
		{"uname", host.Uname, "-s", "Linux\n"},
		{"uname two", host.Uname, "-ns", "Linux " + name + "\n"},
		{"ps of ourselves", host.Ps, "-o pid,comm", "\n" + strconv.Itoa(os.Getpid()) + " "},
		{"free", host.Free, "-m", "Mem:"},
		{"which", host.Which, "sh", "/sh\n"},
		{"mount", host.Mount, "", " on /proc type proc ("},
		{"kill -l", host.Kill, "-l", "15 TERM\n"},
	} {
		if got, err := do(t, c.f, "", strings.Fields(c.args)...); err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.what, got, err, c.want)
		}
	}
	for what, err := range map[string]error{
		"which of nothing":      second(do(t, host.Which, "", "no-such-program")),
		"a signal of no name":   second(do(t, host.Kill, "", "-NOPE", "1")),
		"a time that is none":   second(do(t, host.Sleep, "", "soon")),
		"a column that is none": second(do(t, host.Ps, "", "-o", "nope")),
		"a size that is none":   second(do(t, host.Stress, "", "--mem", "much")),
		"a load without a flag": second(do(t, host.Stress, "", "mem", "1M", "-t", "0")),
	} {
		if err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func second(_ string, err error) error { return err }

func TestXargs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, in, want string }{
		{"echo a", "1 2\n3", "a 1 2 3\n"},
		{"-n 2 echo", "1 2 3", "1 2\n3\n"},
		{"-I{} echo <{}>", "a b\nc\n", "<a b>\n<c>\n"},
		{"-0 echo", "a b\x00c\x00", "a b c\n"},
		{"-r echo", "", ""},
	} {
		if got, err := do(t, host.Xargs, c.in, strings.Fields(c.args)...); err != nil || got != c.want {
			t.Errorf("xargs %s: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
	if _, err := do(t, host.Xargs, "x", "false"); applet.Status(err) != 123 {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, host.Kill, "", "-s", "KILL", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended with %v", err)
	}
}

func TestStress(t *testing.T) {
	t.Parallel()
	out, err := do(t, host.Stress, "", "--mem", "8m", "--cpu", "1", "--io", "1m", "--dir", t.TempDir(), "-t", "100ms")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Mem     int64
		CPU     float64 `json:"cpu-seconds"`
		Written int64   `json:"io-written"`
		Error   string  `json:"io-error"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Mem != 8<<20 || got.CPU <= 0 || got.Written != 1<<20 || got.Error != "" {
		t.Errorf("%s", out)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := host.Sleep(ctx, applet.IO{}, []string{"infinity"}); err != nil {
		t.Error(err)
	}
}
