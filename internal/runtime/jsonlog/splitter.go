package jsonlog

import "bytes"

// Splitter cuts one stream of output into lines of at most MaxLine bytes and
// gives them to a Writer. It is used by one goroutine at a time.
type Splitter struct {
	W      *Writer
	Stream string
	rest   []byte // the beginning of a line
}

// Write takes a piece of output. After an error the rest of p is still looked
// at: a full disk costs lines, not the container's output to others.
func (s *Splitter) Write(p []byte) error {
	s.W.mu.Lock()
	defer s.W.mu.Unlock()
	s.W.beginLocked()
	for len(p) > 0 {
		room := MaxLine - len(s.rest)
		end := bytes.IndexByte(p[:min(room, len(p))], '\n') + 1
		if end == 0 && len(p) >= room {
			end = room
		}
		if end == 0 {
			s.rest = append(s.rest, p...)
			break
		}
		s.emit(p[:end])
		p = p[end:]
	}
	return s.W.flushLocked()
}

func (s *Splitter) emit(p []byte) {
	if len(s.rest) > 0 {
		p = append(s.rest, p...)
	}
	s.rest = nil
	s.W.addLocked(s.Stream, p)
}

// Flush writes what has no newline yet: the stream has ended.
func (s *Splitter) Flush() error {
	if len(s.rest) == 0 {
		return nil
	}
	s.W.mu.Lock()
	defer s.W.mu.Unlock()
	s.W.beginLocked()
	s.emit(nil)
	return s.W.flushLocked()
}
