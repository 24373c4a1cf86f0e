package jsonlog

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Options say what is read.
type Options struct {
	// Tail is the number of entries before the end that reading begins with;
	// negative: all.
	Tail         int
	Since, Until time.Time // zero: no limit; both are inclusive
	Follow       bool
	// Done tells that nothing will be written any more: following ends when
	// what is there has been read. nil: follow until the context ends.
	Done <-chan struct{}
}

// Read calls fn for every entry, oldest first. It ends with fn's error, or the
// context's. A log that does not exist is empty.
func Read(ctx context.Context, path string, opts Options, fn func(Entry) error) error {
	r := &reader{path: path, opts: opts, fn: fn}
	if opts.Follow {
		w := newWatch(path)
		defer w.close()
		r.changed = w.changed
	}
	err := r.run(ctx)
	if errors.Is(err, errUntil) {
		return nil
	}
	return err
}

// errUntil ends reading at the first entry after Options.Until.
var errUntil = errors.New("past the end that was asked for")

type reader struct {
	path    string
	opts    Options
	fn      func(Entry) error
	changed <-chan struct{}

	cur   *os.File // the newest segment, read so far up to off
	id    fs.FileInfo
	off   int64
	entry Entry
	last  time.Time // of the last entry read: the cursor
}

func (r *reader) run(ctx context.Context) error {
	defer func() {
		if r.cur != nil {
			r.cur.Close()
		}
	}()
	if err := r.begin(ctx); err != nil || !r.opts.Follow {
		return err
	}
	return r.follow(ctx)
}

// begin reads what is there.
func (r *reader) begin(ctx context.Context) error {
	list, err := segments(r.path)
	if err != nil {
		return err
	}
	if r.opts.Tail >= 0 {
		if list, err = tail(list, r.opts.Tail); err != nil {
			closeAll(list)
			return err
		}
	}
	return r.segments(ctx, list)
}

// segments reads segments, oldest (that is, last) first, and keeps the newest
// open. It closes the others.
func (r *reader) segments(ctx context.Context, list []segment) error {
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		if i == 0 && !s.zip {
			if r.cur != nil {
				r.cur.Close()
			}
			r.cur, r.id, r.off = s.file, s.id, s.skip
			return r.advance(ctx)
		}
		err := r.segment(ctx, s)
		s.file.Close()
		if err != nil {
			closeAll(list[:i])
			return err
		}
	}
	return nil
}

func (r *reader) segment(ctx context.Context, s segment) error {
	if !s.zip {
		_, err := r.lines(ctx, s.file, s.skip)
		return err
	}
	z, err := gzip.NewReader(s.file)
	if err != nil {
		return fmt.Errorf("read log %s: %w", s.file.Name(), err)
	}
	b := bufio.NewReaderSize(z, 32<<10)
	for i := int64(0); ; i++ {
		line, err := readLine(b)
		if err != nil {
			return ignoreEOF(err)
		}
		if i < s.skip {
			continue
		}
		if err := r.line(ctx, line); err != nil {
			return err
		}
	}
}

// advance reads the newest segment to its present end.
func (r *reader) advance(ctx context.Context) (err error) {
	r.off, err = r.lines(ctx, r.cur, r.off)
	return err
}

// lines reads the complete lines of f from off and returns where they end.
func (r *reader) lines(ctx context.Context, f io.ReaderAt, off int64) (int64, error) {
	b := bufio.NewReaderSize(io.NewSectionReader(f, off, 1<<62), 32<<10)
	for {
		line, err := readLine(b)
		if err != nil {
			return off, ignoreEOF(err)
		}
		off += int64(len(line))
		if err := r.line(ctx, line); err != nil {
			return off, err
		}
	}
}

// readLine returns a line with its newline. One that has none is io.EOF: its
// writer is at it.
func readLine(b *bufio.Reader) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		head := append([]byte(nil), line...)
		line, err = b.ReadBytes('\n')
		line = append(head, line...)
	}
	return line, err
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("read log: %w", err)
}

func (r *reader) line(ctx context.Context, line []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &r.entry
	if decode(line, e) != nil || (!r.last.IsZero() && !e.Time.After(r.last)) {
		return nil
	}
	r.last = e.Time
	if !r.opts.Since.IsZero() && e.Time.Before(r.opts.Since) {
		return nil
	}
	if !r.opts.Until.IsZero() && e.Time.After(r.opts.Until) {
		return errUntil
	}
	return r.fn(*e)
}
