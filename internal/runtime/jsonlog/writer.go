package jsonlog

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Config is what a Writer needs.
type Config struct {
	Path     string // required
	MaxSize  int64  // bytes after which a new file is begun; 0: never
	MaxFile  int    // files kept, Path included; below 1 counts as 1
	Attrs    map[string]string
	Compress bool // older files are gzipped
}

// Writer appends to a log. Its methods may be called concurrently.
type Writer struct {
	conf  Config
	attrs []byte

	mu     sync.Mutex
	file   *os.File
	size   int64
	last   time.Time
	buf    []byte // the batch, and where its memory comes from
	pooled *[]byte
	err    error          // the batch's first
	zipped sync.WaitGroup // the compression of PATH.1 in progress
}

// Open opens a log for appending and makes it when it is not there.
func Open(conf Config) (*Writer, error) {
	w := &Writer{conf: conf, attrs: encodeAttrs(conf.Attrs)}
	w.conf.MaxFile = max(conf.MaxFile, 1)
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, w.mend()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.conf.Path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = f, st.Size()
	return nil
}

// mend ends a line that a crash has torn and goes on from the last time.
func (w *Writer) mend() error {
	if w.size == 0 {
		return nil
	}
	tail := make([]byte, 1)
	if _, err := w.file.ReadAt(tail, w.size-1); err != nil {
		return fmt.Errorf("read log %s: %w", w.conf.Path, err)
	}
	if tail[0] != '\n' {
		n, err := w.file.Write([]byte("\n"))
		if w.size += int64(n); err != nil {
			return fmt.Errorf("mend log %s: %w", w.conf.Path, err)
		}
	}
	w.last = lastTime(w.file, w.size)
	return nil
}

// lastTime is the time of the last entry that can be read, or zero.
func lastTime(f io.ReaderAt, size int64) time.Time {
	off, _, err := lastLines(f, size, 1)
	if err != nil || size-off > 1<<20 {
		return time.Time{}
	}
	line := make([]byte, size-off)
	if _, err := f.ReadAt(line, off); err != nil {
		return time.Time{}
	}
	var e Entry
	if decode(line, &e) != nil {
		return time.Time{}
	}
	return e.Time
}

// Write appends one entry. line holds its newline when the output had one, and
// is not kept.
func (w *Writer) Write(stream string, line []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beginLocked()
	w.addLocked(stream, line)
	return w.flushLocked()
}

// buffers are shared: an idle log holds none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxBatch is how much is written at once.
const maxBatch = 64 << 10

// beginLocked begins a batch of entries, which flushLocked ends. One batch is
// one write(2): that is what a line costs.
func (w *Writer) beginLocked() {
	if now := time.Now().Round(0); now.After(w.last) {
		w.last = now
	}
	w.pooled = buffers.Get().(*[]byte)
	w.buf = (*w.pooled)[:0]
}

// addLocked adds an entry to the batch. The first error is kept for flushLocked.
func (w *Writer) addLocked(stream string, line []byte) {
	w.last = w.last.Add(1)
	start := len(w.buf)
	w.buf = appendEntry(w.buf, line, stream, w.attrs, w.last)
	n := int64(len(w.buf) - start)
	if limit := w.conf.MaxSize; limit > 0 && w.size+int64(start) > 0 && w.size+int64(start)+n > limit {
		w.writeLocked(w.buf[:start])
		w.fail(w.rotateLocked())
		w.buf = append(w.buf[:0], w.buf[start:]...)
	}
	if len(w.buf) >= maxBatch {
		w.writeLocked(w.buf)
		w.buf = w.buf[:0]
	}
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *Writer) writeLocked(b []byte) {
	if w.file == nil {
		w.fail(os.ErrClosed)
		return
	}
	if len(b) == 0 {
		return
	}
	n, err := w.file.Write(b)
	w.size += int64(n)
	if err != nil {
		w.fail(fmt.Errorf("write log: %w", err))
	}
}

func (w *Writer) flushLocked() error {
	w.writeLocked(w.buf)
	*w.pooled = w.buf[:0]
	buffers.Put(w.pooled)
	err := w.err
	w.buf, w.pooled, w.err = nil, nil, nil
	return err
}

func (w *Writer) rotateLocked() error {
	if w.file == nil {
		return os.ErrClosed
	}
	w.zipped.Wait()
	path, n := w.conf.Path, w.conf.MaxFile
	if n == 1 {
		// Readers see a new file, not one that shrank under them.
		os.Remove(path)
	} else {
		w.shift(n)
	}
	old := w.file
	if err := w.open(); err != nil {
		return err // the old file is still written: better there than nowhere
	}
	old.Close()
	if n > 1 && w.conf.Compress {
		w.zipped.Go(func() { compress(rotated(path, 1)) })
	}
	return nil
}

// shift makes PATH.1 of PATH, PATH.2 of PATH.1, and so on.
func (w *Writer) shift(n int) {
	path := w.conf.Path
	os.Remove(rotated(path, n-1))
	os.Remove(rotated(path, n-1) + ".gz")
	for i := n - 2; i >= 0; i-- {
		os.Rename(rotated(path, i), rotated(path, i+1))
		if i > 0 {
			os.Rename(rotated(path, i)+".gz", rotated(path, i+1)+".gz")
		}
	}
}

// compress replaces a file by path.gz. When it fails the file stays as it is.
func compress(path string) {
	tmp := path + ".tmp"
	if err := zipTo(path, tmp); err != nil {
		os.Remove(tmp)
		return
	}
	if os.Rename(tmp, path+".gz") == nil {
		os.Remove(path)
	}
}

func zipTo(path, dst string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close(), out.Close())
}

// Close ends writing; a second call does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zipped.Wait()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
