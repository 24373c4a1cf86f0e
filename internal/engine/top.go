package engine

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// ContainerTop lists the container's processes as ps would, from /proc: no
// program is run, and formats that ps knows and this table does not are refused.
func (e *Engine) ContainerTop(ctx context.Context, ref string, psArgs string) (apitypes.TopResponse, error) {
	c, err := e.find(ref)
	if err != nil {
		return apitypes.TopResponse{}, err
	}
	columns, err := psColumns(psArgs)
	if err != nil {
		return apitypes.TopResponse{}, err
	}
	rec := c.snapshot()
	if err := mayExec(rec); err != nil && rec.State.Status != apitypes.StatePaused {
		return apitypes.TopResponse{}, err
	}
	pids, err := e.Runtime.Pids(ctx, rec.ID)
	if err != nil {
		return apitypes.TopResponse{}, about(rec, "processes of", err)
	}
	slices.Sort(pids)
	m, err := readMachine()
	if err != nil {
		return apitypes.TopResponse{}, err
	}
	top := apitypes.TopResponse{Processes: [][]string{}}
	for _, col := range columns {
		top.Titles = append(top.Titles, col.title)
	}
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		var row []string
		for _, col := range columns {
			row = append(row, col.value(p, m))
		}
		top.Processes = append(top.Processes, row)
	}
	e.emit(rec, "top")
	return top, nil
}

// machine is what ps has to know besides the process.
type machine struct {
	boot   time.Time
	memory uint64 // bytes
	now    time.Time
}

const clockTick = 100 // USER_HZ is 100 on every architecture that Go runs on

func readMachine() (machine, error) {
	var s unix.Sysinfo_t
	if err := unix.Sysinfo(&s); err != nil {
		return machine{}, fmt.Errorf("read uptime: %w", err)
	}
	now := time.Now()
	return machine{boot: now.Add(-time.Duration(s.Uptime) * time.Second), memory: uint64(s.Totalram) * uint64(s.Unit), now: now}, nil
}

// proc is one process. stat are the fields of /proc/PID/stat after the name,
// the first being the state (field 3 of proc(5)).
type proc struct {
	pid  int
	comm string
	stat []string
	args string
	uid  string
	gid  string
}

func readProcess(pid int) (proc, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	b, err := os.ReadFile(dir + "stat")
	if err != nil {
		return proc{}, err
	}
	s := string(b)
	open, shut := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || shut < open {
		return proc{}, fmt.Errorf("/proc/%d/stat makes no sense", pid)
	}
	p := proc{pid: pid, comm: s[open+1 : shut], stat: strings.Fields(s[shut+1:])}
	if len(p.stat) < 22 {
		return proc{}, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return proc{}, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "Uid:":
			p.uid = f[2]
		case len(f) > 2 && f[0] == "Gid:":
			p.gid = f[2]
		}
	}
	cmd, err := os.ReadFile(dir + "cmdline")
	if err != nil {
		return proc{}, err
	}
	p.args = strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
	if p.args == "" {
		p.args = "[" + p.comm + "]"
	}
	return p, nil
}

// field is a field of proc(5)'s stat by its number there.
func (p proc) field(n int) uint64 {
	v, err := strconv.ParseUint(p.stat[n-3], 10, 64)
	if err != nil {
		return 0
	}
	return v
}

func (p proc) cpu() time.Duration {
	return time.Duration(p.field(14)+p.field(15)) * time.Second / clockTick
}

func (p proc) started(m machine) time.Time {
	return m.boot.Add(time.Duration(p.field(22)) * time.Second / clockTick)
}

func (p proc) rss() uint64 { return p.field(24) * uint64(os.Getpagesize()) }

// share is the CPU time over the lifetime, in percent.
func (p proc) share(m machine) float64 {
	lived := m.now.Sub(p.started(m)).Seconds()
	if lived <= 0 {
		return 0
	}
	return 100 * p.cpu().Seconds() / lived
}

func (p proc) tty() string {
	n := p.field(7)
	major, minor := n>>8&0xfff, n&0xff|n>>12&0xfff00
	switch {
	case n == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8+minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func (p proc) user() string { return userName(p.uid) }

// userName is the host's name for a user id, as ps on the host shows it.
func userName(uid string) string {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return uid
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == uid {
			return f[0]
		}
	}
	return uid
}
