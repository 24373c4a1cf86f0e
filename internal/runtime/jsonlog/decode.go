package jsonlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
)

var errTorn = errors.New("not a line of a json-file log")

// record is the line in general, for what the fast path does not take.
type record struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

// decode reads one line into e, whose Line is overwritten.
func decode(line []byte, e *Entry) error {
	if decodeFast(line, e) {
		return nil
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	if r.Time.IsZero() {
		return errTorn
	}
	e.Line, e.Stream, e.Attrs, e.Time = append(e.Line[:0], r.Log...), r.Stream, r.Attrs, r.Time
	return nil
}

// decodeFast takes lines as Writer makes them, without attributes.
func decodeFast(line []byte, e *Entry) bool {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return false
	}
	text, rest, ok := unquote(e.Line[:0], rest)
	if !ok {
		return false
	}
	e.Line = text
	stream := "stdout"
	rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"stdout","time":"`))
	if !ok {
		stream = "stderr"
		if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"stderr","time":"`)); !ok {
			return false
		}
	}
	stamp, end, ok := bytes.Cut(rest, []byte{'"'})
	if !ok || string(bytes.TrimSpace(end)) != "}" {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || at.IsZero() {
		return false
	}
	e.Stream, e.Attrs, e.Time = stream, nil, at
	return true
}

// unquote appends to b the JSON string that s begins with (after its quote)
// and returns what follows it. It leaves \u escapes but for U+00XX and bytes
// that JSON forbids to the general decoder.
func unquote(b, s []byte) (text, rest []byte, ok bool) {
	for {
		i := bytes.IndexAny(s, "\"\\")
		if i < 0 || !plain(s[:i]) {
			return b, nil, false
		}
		b = append(b, s[:i]...)
		if s[i] == '"' {
			return b, s[i+1:], true
		}
		if s = s[i+1:]; len(s) == 0 {
			return b, nil, false
		}
		switch s[0] {
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'r':
			b = append(b, '\r')
		case '"', '\\', '/':
			b = append(b, s[0])
		default:
			return b, nil, false
		}
		s = s[1:]
	}
}

// plain reports whether s is ASCII or UTF-8 that needs no look.
func plain(s []byte) bool {
	for _, c := range s {
		if c < 0x20 {
			return false
		}
	}
	return utf8.Valid(s)
}
