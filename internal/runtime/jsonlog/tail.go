package jsonlog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// lastLines returns where the last n complete lines begin, and how many there
// are if the file has fewer.
func lastLines(f io.ReaderAt, size int64, n int) (off int64, found int, err error) {
	const block = 32 << 10
	buf := make([]byte, min(block, size))
	if n <= 0 {
		return size, 0, nil
	}
	for end := size; end > 0; {
		begin := max(end-block, 0)
		b := buf[:end-begin]
		if _, err := f.ReadAt(b, begin); err != nil {
			return 0, 0, fmt.Errorf("read log backwards: %w", err)
		}
		for i := len(b) - 1; i >= 0; i-- {
			at := begin + int64(i)
			if b[i] != '\n' || at == size-1 {
				continue
			}
			if found++; found == n {
				return at + 1, n, nil
			}
		}
		end = begin
	}
	if size > 0 {
		found++
	}
	return 0, found, nil
}

// segment is one file of the log, opened.
type segment struct {
	file  *os.File
	id    fs.FileInfo
	zip   bool
	skip  int64 // bytes, or with zip lines, before the first one wanted
	lines int   // known after seek
}

// segments opens the files of a log, the newest first. The order matters: a
// file that a rotation renames meanwhile is then met twice, and dropped the
// second time, instead of never.
func segments(path string) ([]segment, error) {
	var list []segment
	for i := 0; ; i++ {
		s, err := openSegment(rotated(path, i), i > 0)
		if errors.Is(err, fs.ErrNotExist) {
			if i == 0 {
				continue // between two steps of a rotation
			}
			return list, nil
		}
		if err != nil {
			closeAll(list)
			return nil, err
		}
		if i > 0 && len(list) > 0 && os.SameFile(list[len(list)-1].id, s.id) {
			s.file.Close()
			continue
		}
		list = append(list, s)
	}
}

func openSegment(name string, older bool) (segment, error) {
	f, err := os.Open(name)
	zip := false
	if errors.Is(err, fs.ErrNotExist) && older {
		if f, err = os.Open(name + ".gz"); err != nil && errors.Is(err, fs.ErrNotExist) {
			f, err = os.Open(name) // compressed, then rotated on, meanwhile
		} else {
			zip = true
		}
	}
	if err != nil {
		return segment{}, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return segment{}, fmt.Errorf("open log: %w", err)
	}
	return segment{file: f, id: st, zip: zip}, nil
}

func closeAll(list []segment) {
	for _, s := range list {
		s.file.Close()
	}
}

// seek finds where the last n lines of the segment begin.
func (s *segment) seek(n int) (err error) {
	if !s.zip {
		s.skip, s.lines, err = lastLines(s.file, s.id.Size(), n)
		return err
	}
	total, err := s.count()
	s.lines = min(total, n)
	s.skip = int64(total - s.lines)
	return err
}

func (s *segment) count() (lines int, err error) {
	z, err := gzip.NewReader(io.NewSectionReader(s.file, 0, s.id.Size()))
	if err != nil {
		return 0, fmt.Errorf("read log %s: %w", s.file.Name(), err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := z.Read(buf)
		lines += bytes.Count(buf[:n], []byte{'\n'})
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, fmt.Errorf("read log %s: %w", s.file.Name(), err)
		}
	}
}

// tail drops the segments, and sets the offsets, so that n lines are left.
func tail(list []segment, n int) ([]segment, error) {
	for i := range list {
		if err := list[i].seek(n); err != nil {
			return list, err
		}
		if n -= list[i].lines; n <= 0 {
			closeAll(list[i+1:])
			return list[:i+1], nil
		}
	}
	return list, nil
}
