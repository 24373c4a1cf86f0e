package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

// stdio is both sides of what a process is connected to.
type stdio struct {
	ours   [3]*os.File // stdin to write, stdout and stderr to read; with a terminal only [0] and it is the master
	theirs [3]int      // for the runtime
	pipes  [3]uint64   // inodes, by which a later shim finds the pipes again
	tty    bool
	con    *console
}

// newStdio makes pipes, or a socket on which the runtime sends a terminal.
func newStdio(want wire.Stdio, runDir string) (*stdio, error) {
	s := &stdio{theirs: [3]int{-1, -1, -1}, tty: want.Terminal}
	err := s.make(want, runDir)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make stdio: %w", err)
	}
	return s, nil
}

func (s *stdio) make(want wire.Stdio, runDir string) (err error) {
	if !want.Stdin || want.Terminal {
		if s.theirs[0], err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	} else if err := s.pipe(0); err != nil {
		return err
	}
	if want.Terminal {
		s.theirs[1], s.theirs[2] = dup(s.theirs[0]), dup(s.theirs[0])
		s.con, err = listenConsole(runDir, want.Height, want.Width)
		return err
	}
	return errors.Join(s.pipe(1), s.pipe(2))
}

func dup(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

// pipe makes descriptor i. A process's stdout is its pipe opened for reading
// as well: while this shim is gone, and until the next has found the pipe,
// the process then waits instead of dying of SIGPIPE.
func (s *stdio) pipe(i int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	mine, other := p[0], p[1]
	if i == 0 {
		mine, other = p[1], p[0]
	} else {
		rw, err := unix.Open("/proc/self/fd/"+strconv.Itoa(other), unix.O_RDWR|unix.O_CLOEXEC, 0)
		unix.Close(other)
		if err != nil {
			unix.Close(mine)
			return err
		}
		other = rw
	}
	s.theirs[i] = other
	unix.SetNonblock(mine, true)
	s.ours[i] = os.NewFile(uintptr(mine), "stdio")
	var st unix.Stat_t
	if err := unix.Fstat(other, &st); err != nil {
		return err
	}
	s.pipes[i] = st.Ino
	return nil
}

// given closes the process's side here: the runtime has it.
func (s *stdio) given() {
	for i, fd := range s.theirs {
		if fd >= 0 {
			unix.Close(fd)
		}
		s.theirs[i] = -1
	}
}

// terminal takes the terminal after the runtime has succeeded.
func (s *stdio) terminal() error {
	if s.con == nil {
		return nil
	}
	f, err := s.con.receive()
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	s.ours[0] = f
	return nil
}

func setSize(f *os.File, height, width uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	return errors.Join(err, set)
}

func (s *stdio) close() {
	s.given()
	s.con.close()
	for _, f := range s.ours {
		if f != nil {
			f.Close()
		}
	}
}

// console is a socket on which a runtime sends the master of a terminal.
type console struct {
	path          string
	l             *net.UnixListener
	got           chan received
	height, width uint16
}

type received struct {
	file *os.File
	err  error
}

var consoles atomic.Uint64 // names only

// listenConsole makes the socket in runDir under a name as short as can be: a
// socket's path has at most 107 bytes.
func listenConsole(runDir string, height, width uint16) (*console, error) {
	path := filepath.Join(runDir, "c"+strconv.FormatUint(consoles.Add(1), 36))
	os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	c := &console{path: path, l: l, got: make(chan received, 1), height: height, width: width}
	go c.accept() // ends with close
	return c, nil
}

func (c *console) accept() {
	conn, err := c.l.AcceptUnix()
	if err != nil {
		c.got <- received{err: err}
		return
	}
	defer conn.Close()
	f, err := receiveFile(conn)
	if err == nil && c.height > 0 { // at once: an exec's program is about to look
		err = setSize(f, c.height, c.width)
	}
	c.got <- received{f, err}
}

func receiveFile(conn *net.UnixConn) (*os.File, error) {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob) // close-on-exec: package net asks for it
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		for _, fd := range fds[1:] {
			unix.Close(fd)
		}
		unix.SetNonblock(fds[0], true)
		return os.NewFile(uintptr(fds[0]), "terminal"), nil
	}
	return nil, errors.New("the runtime sent no descriptor")
}

func (c *console) receive() (*os.File, error) {
	select {
	case r := <-c.got:
		return r.file, r.err
	case <-time.After(10 * time.Second):
		return nil, errors.New("the runtime sent no terminal")
	}
}

func (c *console) close() {
	if c != nil {
		c.l.Close()
		os.Remove(c.path)
	}
}

// reopenPipe finds the pipe with that inode among a process's descriptors and
// opens it again, for reading or writing. Nil when the process has let go of it.
func reopenPipe(pid int, inode uint64, flags int) *os.File {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	list, _ := os.ReadDir(dir)
	want := "pipe:[" + strconv.FormatUint(inode, 10) + "]"
	for _, e := range list {
		if link, _ := os.Readlink(dir + e.Name()); !strings.EqualFold(link, want) {
			continue
		}
		fd, err := unix.Open(dir+e.Name(), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), "stdio")
		}
	}
	return nil
}
