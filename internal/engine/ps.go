package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// column is one column of ps.
type column struct {
	name, title string
	value       func(proc, machine) string
}

func number(n int) func(proc, machine) string {
	return func(p proc, _ machine) string { return strconv.FormatUint(p.field(n), 10) }
}

func kib(f func(proc) uint64) func(proc, machine) string {
	return func(p proc, _ machine) string { return strconv.FormatUint(f(p)/1024, 10) }
}

// columns are what can be asked for with -o.
var columns = []column{
	{"uid", "UID", func(p proc, _ machine) string { return p.uid }},
	{"user", "USER", func(p proc, _ machine) string { return p.user() }},
	{"gid", "GID", func(p proc, _ machine) string { return p.gid }},
	{"pid", "PID", func(p proc, _ machine) string { return strconv.Itoa(p.pid) }},
	{"ppid", "PPID", number(4)},
	{"pgid", "PGID", number(5)},
	{"sid", "SID", number(6)},
	{"pri", "PRI", number(18)},
	{"ni", "NI", func(p proc, _ machine) string { return p.stat[19-3] }},
	{"nlwp", "NLWP", number(20)},
	{"c", "C", func(p proc, m machine) string { return strconv.Itoa(int(p.share(m))) }},
	{"pcpu", "%CPU", func(p proc, m machine) string { return fmt.Sprintf("%.1f", p.share(m)) }},
	{"pmem", "%MEM", func(p proc, m machine) string {
		return fmt.Sprintf("%.1f", 100*float64(p.rss())/float64(max(m.memory, 1)))
	}},
	{"vsz", "VSZ", kib(func(p proc) uint64 { return p.field(23) })},
	{"rss", "RSS", kib(proc.rss)},
	{"tty", "TTY", func(p proc, _ machine) string { return p.tty() }},
	{"stat", "STAT", func(p proc, _ machine) string { return p.stat[0] }},
	{"stime", "STIME", stime},
	{"lstart", "STARTED", func(p proc, m machine) string { return p.started(m).Format(time.ANSIC) }},
	{"etime", "ELAPSED", func(p proc, m machine) string { return elapsed(m.now.Sub(p.started(m))) }},
	{"time", "TIME", func(p proc, _ machine) string { return clock(p.cpu()) }},
	{"comm", "COMMAND", func(p proc, _ machine) string { return p.comm }},
	{"args", "COMMAND", func(p proc, _ machine) string { return p.args }},
}

var columnAliases = map[string]string{
	"%cpu": "pcpu", "%mem": "pmem", "tname": "tty", "tt": "tty", "cputime": "time", "cmd": "args", "command": "args", "ucmd": "comm",
	"state": "stat", "s": "stat", "nice": "ni", "rssize": "rss", "rsz": "rss", "vsize": "vsz", "start": "stime", "start_time": "stime",
	"euser": "user", "uname": "user", "euid": "uid", "egid": "gid", "pgrp": "pgid", "sess": "sid", "session": "sid", "thcount": "nlwp",
	"ucomm": "comm", "cp": "c",
}

func stime(p proc, m machine) string {
	t := p.started(m)
	if m.now.Sub(t) < 24*time.Hour {
		return t.Format("15:04")
	}
	return t.Format("Jan02")
}

// clock is ps's TIME.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// elapsed is ps's [[DD-]hh:]mm:ss.
func elapsed(d time.Duration) string {
	s := int(d.Seconds())
	switch {
	case s >= 86400:
		return fmt.Sprintf("%d-%02d:%02d:%02d", s/86400, s/3600%24, s/60%60, s%60)
	case s >= 3600:
		return clock(d)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// bsdTime is TIME in BSD formats.
func bsdTime(p proc, _ machine) string {
	s := int(p.cpu().Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func byName(names ...string) []column {
	var out []column
	for _, n := range names {
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == n })
		out = append(out, columns[i])
	}
	return out
}

func titled(c column, title string) column {
	c.title = title
	return c
}

// psColumns reads the arguments of ps: none, -ef, -f, aux, u, -l, and -o with
// or without titles, in one argument or in several.
func psColumns(args string) ([]column, error) {
	fields := strings.Fields(args)
	format := ""
	var asked []column
	for i := 0; i < len(fields); i++ {
		f := fields[i]
		plain := strings.TrimLeft(f, "-")
		at := strings.IndexByte(plain, 'o')
		if strings.HasPrefix(f, "--") || at < 0 {
			format += plain
			continue
		}
		format += plain[:at]
		list := plain[at+1:]
		if list == "" && i+1 < len(fields) {
			i++
			list = fields[i]
		}
		cols, err := outputColumns(list)
		if err != nil {
			return nil, err
		}
		asked = append(asked, cols...)
	}
	if len(asked) > 0 {
		return asked, nil
	}
	return formatColumns(args, format)
}

func formatColumns(args, format string) ([]column, error) {
	for _, c := range format {
		if !strings.ContainsRune("aAefuxwldHjh", c) {
			return nil, invalid("ps: option %q of %q is not known to Isle: use -o with columns", c, args)
		}
	}
	switch {
	case strings.Contains(format, "u"):
		cols := byName("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "stime", "time", "args")
		cols[8].title = "START"
		cols[9].value = bsdTime
		return cols, nil
	case strings.Contains(format, "l"):
		cols := byName("stat", "uid", "pid", "ppid", "c", "pri", "ni", "vsz", "tty", "time", "comm")
		cols[0].title, cols[10].title = "S", "CMD"
		return cols, nil
	case strings.ContainsAny(format, "x"):
		cols := byName("pid", "tty", "stat", "time", "args")
		cols[3].value = bsdTime
		return cols, nil
	case format == "" || strings.Contains(format, "f"):
		cols := byName("user", "pid", "ppid", "c", "stime", "tty", "time", "args")
		cols[0].title, cols[7].title = "UID", "CMD"
		return cols, nil
	}
	cols := byName("pid", "tty", "time", "comm")
	cols[3].title = "CMD"
	return cols, nil
}

// outputColumns reads "pid,comm" and "pid=ID".
func outputColumns(list string) ([]column, error) {
	var out []column
	for item := range strings.SplitSeq(list, ",") {
		name, title, own := strings.Cut(item, "=")
		name = strings.ToLower(name)
		if a, ok := columnAliases[name]; ok {
			name = a
		}
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == name })
		if i < 0 {
			return nil, invalid("ps: error: unknown user-defined format specifier %q", item)
		}
		c := columns[i]
		if own {
			c = titled(c, title)
		}
		out = append(out, c)
	}
	return out, nil
}
