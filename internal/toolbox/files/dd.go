package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

type dd struct {
	in, out          string
	bs, count        int64
	skip, seek       int64
	direct, sync     bool
	noTrunc, fullBlk bool
	quiet            bool
}

// Dd copies blocks: if= of= bs= count= skip= seek= iflag=fullblock oflag=direct,dsync conv=fsync,notrunc status=none.
func Dd(_ context.Context, s applet.IO, args []string) error {
	d := dd{bs: 512, count: -1}
	for _, a := range args {
		if err := d.set(a); err != nil {
			return err
		}
	}
	in, err := d.openIn(s)
	if err != nil {
		return err
	}
	out, err := d.openOut(s)
	if err != nil {
		return err
	}
	start := time.Now()
	blocks, n, err := d.copy(in, out)
	if f, ok := out.(*os.File); ok && d.sync && err == nil {
		err = f.Sync()
	}
	if !d.quiet {
		t := time.Since(start)
		fmt.Fprintf(s.Err, "%d blocks\n%d bytes (%s) copied, %.3f s, %s/s\n", blocks, n, applet.Human(n), t.Seconds(), applet.Human(int64(float64(n)/max(t.Seconds(), 1e-6))))
	}
	return err
}

func (d *dd) set(arg string) error {
	key, value, _ := strings.Cut(arg, "=")
	size := func(to *int64) (err error) { *to, err = applet.Size(value); return err }
	switch key {
	case "if":
		d.in = value
	case "of":
		d.out = value
	case "bs":
		if err := size(&d.bs); err != nil || d.bs == 0 {
			return errors.Join(err, errors.New("bs must be more than 0"))
		}
	case "count":
		return size(&d.count)
	case "skip":
		return size(&d.skip)
	case "seek":
		return size(&d.seek)
	case "status":
		d.quiet = value == "none"
	case "iflag", "oflag", "conv":
		d.direct = d.direct || strings.Contains(value, "direct")
		d.sync = d.sync || strings.Contains(value, "sync")
		d.noTrunc = d.noTrunc || strings.Contains(value, "notrunc")
		d.fullBlk = d.fullBlk || strings.Contains(value, "fullblock")
	default:
		return fmt.Errorf("operand %q is not known", arg)
	}
	return nil
}

func (d *dd) openIn(s applet.IO) (io.Reader, error) {
	if d.in == "" {
		_, err := io.CopyN(io.Discard, s.In, d.skip*d.bs)
		return s.In, err
	}
	f, err := os.Open(d.in)
	if err != nil || d.skip == 0 {
		return f, err
	}
	_, err = f.Seek(d.skip*d.bs, io.SeekStart)
	return f, err
}

func (d *dd) openOut(s applet.IO) (io.Writer, error) {
	if d.out == "" {
		return s.Out, nil
	}
	flags := os.O_WRONLY | os.O_CREATE
	if d.direct {
		flags |= unix.O_DIRECT
	}
	if !d.noTrunc && d.seek == 0 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(d.out, flags, 0o666)
	if err != nil || d.seek == 0 {
		return f, err
	}
	_, err = f.Seek(d.seek*d.bs, io.SeekStart)
	return f, err
}

func (d *dd) copy(in io.Reader, out io.Writer) (blocks int, total int64, err error) {
	buf := aligned(d.bs)
	for d.count < 0 || int64(blocks) < d.count {
		read := in.Read
		if d.fullBlk || d.direct {
			read = func(p []byte) (int, error) { return io.ReadFull(in, p) }
		}
		n, rerr := read(buf)
		if n > 0 {
			w, err := out.Write(buf[:n])
			total += int64(w)
			if err != nil {
				return blocks, total, err
			}
			blocks++
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			return blocks, total, nil
		}
		if rerr != nil {
			return blocks, total, rerr
		}
	}
	return blocks, total, nil
}

// aligned is a block that O_DIRECT takes.
func aligned(size int64) []byte {
	const page = 4096
	buf := make([]byte, size+page)
	shift := (page - int64(uintptr(unsafe.Pointer(&buf[0]))%page)) % page
	return buf[shift : shift+size]
}
