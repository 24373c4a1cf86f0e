// Package jsonlog is Docker's "json-file" log: one JSON object per line,
//
//	{"log":"hello\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-02T03:04:05.000000006Z"}
//
// in PATH, and when that has grown to its limit in PATH.1 (newer), PATH.2, …,
// or PATH.1.gz, … when compressed. Writer is used by isle-shim, Read by the
// engine; they share nothing but the files.
//
// A line of output longer than 16 KiB becomes several objects, all but the last
// without "\n". The times of the objects of one log are strictly increasing: the
// writer adds a nanosecond when the clock stands still or steps back. This is
// what makes a time a cursor, by which a reader that was overtaken by rotations
// finds its place without loss or repetition.
//
// What a crash has torn off is closed with a newline by the next writer, and
// readers pass over lines that they cannot decode.
package jsonlog

import (
	"os"
	"strconv"
	"time"
)

// MaxLine is the most output that one object holds.
const MaxLine = 16 << 10

// Entry is one object of the log.
type Entry struct {
	Line   []byte // valid during the call it is given to
	Stream string // "stdout" or "stderr"
	Attrs  map[string]string
	Time   time.Time
}

// rotated is the name of the i-th older file; 0 is the log itself.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// Remove deletes a log with all its older files.
func Remove(path string) error {
	for i := 1; ; i++ {
		plain, zipped := os.Remove(rotated(path, i)), os.Remove(rotated(path, i)+".gz")
		if plain != nil && zipped != nil {
			break
		}
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
