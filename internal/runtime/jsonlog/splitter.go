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
func (s *Splitter) Write(p []byte) (err error) {
	for len(p) > 0 {
		room := MaxLine - len(s.rest)
		i := bytes.IndexByte(p[:min(room, len(p))], '\n')
		switch {
		case i >= 0:
			err = s.emit(p[:i+1], err)
			p = p[i+1:]
		case len(p) >= room:
			err = s.emit(p[:room], err)
			p = p[room:]
		default:
			s.rest = append(s.rest, p...)
			return err
		}
	}
	return err
}

func (s *Splitter) emit(p []byte, before error) error {
	if len(s.rest) > 0 {
		p = append(s.rest, p...)
	}
	s.rest = nil
	if err := s.W.Write(s.Stream, p); err != nil && before == nil {
		return err
	}
	return before
}

// Flush writes what has no newline yet: the stream has ended.
func (s *Splitter) Flush() error {
	if len(s.rest) == 0 {
		return nil
	}
	return s.emit(nil, nil)
}
