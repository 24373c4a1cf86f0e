package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"isle/internal/toolbox/applet"
)

// ticksPerSecond is what the kernel's times are in: USER_HZ, 100 everywhere.
const ticksPerSecond = 100

type process struct {
	pid, ppid, uid int
	state          string
	cpu            time.Duration
	rss            int64
	threads        int
	command, name  string
}

var psColumns = map[string]func(process) string{
	"pid": func(p process) string { return strconv.Itoa(p.pid) }, "ppid": func(p process) string { return strconv.Itoa(p.ppid) },
	"user": func(p process) string { return userName(p.uid) }, "uid": func(p process) string { return strconv.Itoa(p.uid) },
	"stat": func(p process) string { return p.state }, "time": func(p process) string { return clock(p.cpu) },
	"rss": func(p process) string { return strconv.FormatInt(p.rss/1024, 10) }, "nlwp": func(p process) string { return strconv.Itoa(p.threads) },
	"comm": func(p process) string { return p.name }, "args": func(p process) string { return p.command }, "cmd": func(p process) string { return p.command },
}

// Ps lists all processes. -o chooses columns; the usual "aux" and "-ef" are taken.
func Ps(_ context.Context, s applet.IO, args []string) error {
	columns := "pid,user,stat,rss,time,args"
	for i, a := range args {
		switch {
		case a == "-o" && i+1 < len(args):
			columns = args[i+1]
		case strings.HasPrefix(a, "-o"):
			columns = a[2:]
		case a == "-ef" || a == "-f":
			columns = "user,pid,ppid,stat,time,args"
		}
	}
	list, err := processes()
	if err != nil {
		return err
	}
	return printProcesses(s, list, strings.Split(columns, ","))
}

func printProcesses(s applet.IO, list []process, columns []string) error {
	w := tabwriter.NewWriter(s.Out, 0, 0, 1, ' ', 0)
	var heads []string
	for _, c := range columns {
		if psColumns[c] == nil {
			return fmt.Errorf("column %q is not known", c)
		}
		heads = append(heads, strings.ToUpper(c))
	}
	fmt.Fprintln(w, strings.Join(heads, "\t"))
	for _, p := range list {
		var cells []string
		for _, c := range columns {
			cells = append(cells, psColumns[c](p))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func processes() ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	var list []process
	for _, dir := range dirs {
		p, err := readProcess(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	return list, err
}

func readProcess(dir string) (process, error) {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(string(stat))
	if err != nil {
		return p, fmt.Errorf("%s: %w", dir, err)
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	p.command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	if p.command == "" {
		p.command = "[" + p.name + "]"
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return p, err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		p.uid = int(st.Uid)
	}
	return p, nil
}

// parseStat reads /proc/PID/stat. The name is in parentheses and may hold any character.
func parseStat(text string) (process, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, errors.New("stat has no name")
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 22 {
		return process{}, errors.New("stat is too short")
	}
	n := func(i int) int { v, _ := strconv.Atoi(f[i]); return v } // the kernel writes numbers
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	return process{
		pid: pid, name: text[open+1 : end], state: f[0], ppid: n(1), threads: n(17),
		cpu: time.Duration(n(11)+n(12)) * time.Second / ticksPerSecond, rss: int64(n(21)) * int64(os.Getpagesize()),
	}, err
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}
