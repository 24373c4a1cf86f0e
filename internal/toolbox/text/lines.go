package text

import (
	"bufio"
	"bytes"
	"io"
)

// longest is the longest line that is read: no limit that anyone meets.
const longest = 64 << 20

// eachLine calls f with every line, without its end, until f returns false.
func eachLine(r io.Reader, f func(line string) bool) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, longest)
	sc.Split(keepCR)
	for sc.Scan() {
		if !f(sc.Text()) {
			return nil
		}
	}
	return sc.Err()
}

// keepCR splits at line feeds only: bufio.ScanLines eats carriage returns.
func keepCR(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
