package jsonlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

func collect(t *testing.T, path string, o Options) (lines []string) {
	t.Helper()
	err := Read(context.Background(), path, o, func(e Entry) error {
		lines = append(lines, string(e.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func open(t *testing.T, c Config) *Writer {
	t.Helper()
	w, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestFormat(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, test := range []struct {
		line, stream string
		attrs        map[string]string
		want         string
	}{
		{"hello\n", "stdout", nil, `{"log":"hello\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`},
		{"", "stderr", nil, `{"log":"","stream":"stderr","time":"2026-01-02T03:04:05.000000006Z"}`},
		{"q\"b\\t\tz\x00\x1b", "stdout", nil, `{"log":"q\"b\\t\tz\u0000\u001b","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`},
		{"ü\xffz\xf0", "stdout", nil, `{"log":"ü\ufffdz\ufffd","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`},
		{"x\n", "stdout", map[string]string{"b": "2", "a": "1"}, `{"log":"x\n","stream":"stdout","attrs":{"a":"1","b":"2"},"time":"2026-01-02T03:04:05.000000006Z"}`},
	} {
		got := appendEntry(nil, []byte(test.line), test.stream, encodeAttrs(test.attrs), at)
		if string(got) != test.want+"\n" {
			t.Errorf("%q:\n got %s\nwant %s", test.line, got, test.want)
		}
		var e Entry
		if err := decode(got, &e); err != nil || !e.Time.Equal(at) || e.Stream != test.stream || len(e.Attrs) != len(test.attrs) {
			t.Errorf("%s: decoded %+v, %v", got, e, err)
		}
		if utf8.ValidString(test.line) && string(e.Line) != test.line {
			t.Errorf("%q came back as %q", test.line, e.Line)
		}
	}
}

// FuzzEncode: what is written is JSON, and comes back.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("a\nb\"\\\x00\xff"))
	f.Fuzz(func(t *testing.T, line []byte) {
		b := appendEntry(nil, line, "stderr", nil, time.Unix(1, 2))
		var r record
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		var e Entry
		if err := decode(b, &e); err != nil || string(e.Line) != r.Log || e.Stream != r.Stream || !e.Time.Equal(r.Time) {
			t.Fatalf("%q: %+v %v, want %+v", b, e, err, r)
		}
		if utf8.Valid(line) && !bytes.Equal(e.Line, line) {
			t.Fatalf("%q became %q", line, e.Line)
		}
	})
}

// FuzzDecode: whatever the fast path takes, the general one takes alike.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`))
	f.Add([]byte(`{"log":"\u00e4\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"log":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var e Entry
		if !decodeFast(line, &e) {
			decode(line, &e)
			return
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q is taken but is not JSON: %v", line, err)
		}
		if r.Log != string(e.Line) || r.Stream != e.Stream || !r.Time.Equal(e.Time) {
			t.Fatalf("%q: %+v, want %+v", line, e, r)
		}
	})
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, test := range []struct{ in, want []string }{
		{[]string{"a\nb\n"}, []string{"a\n", "b\n"}},
		{[]string{"a", "b", "\nc"}, []string{"ab\n", "c"}},
		{[]string{"\n\n"}, []string{"\n", "\n"}},
		{[]string{long + "y\n"}, []string{long, "y\n"}},
		{[]string{long, "\n"}, []string{long, "\n"}},
		{[]string{"1", long, "\nz\n"}, []string{"1" + long[1:], "x\n", "z\n"}},
		{[]string{""}, nil},
	} {
		path := filepath.Join(t.TempDir(), "log")
		s := &Splitter{W: open(t, Config{Path: path}), Stream: "stdout"}
		for _, in := range test.in {
			if err := s.Write([]byte(in)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := collect(t, path, Options{Tail: -1}); strings.Join(got, "|") != strings.Join(test.want, "|") {
			t.Errorf("%.20q: %d lines, want %d", test.in, len(got), len(test.want))
		}
	}
}

func TestRotation(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, Config{Path: path, MaxSize: 1000, MaxFile: 3, Compress: compress})
		for i := range 100 {
			if err := w.Write("stdout", fmt.Appendf(nil, "line %d\n", i)); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		names, _ := filepath.Glob(path + "*")
		suffix := map[bool]string{true: ".gz"}[compress]
		want := []string{path, path + ".1" + suffix, path + ".2" + suffix}
		if strings.Join(names, " ") != strings.Join(want, " ") {
			t.Errorf("files %v", names)
		}
		if st, err := os.Stat(path); err != nil || st.Size() > 1000 {
			t.Errorf("%v, %v", st.Size(), err)
		}
		all := collect(t, path, Options{Tail: -1})
		for i, line := range all {
			if want := fmt.Sprintf("line %d\n", 100-len(all)+i); line != want {
				t.Fatalf("line %d is %q, want %q", i, line, want)
			}
		}
		if len(all) < 22 {
			t.Errorf("%d lines kept", len(all))
		}
		for _, n := range []int{0, 1, 5, 12, 20, 1000} {
			got := collect(t, path, Options{Tail: n})
			if want := all[len(all)-min(n, len(all)):]; strings.Join(got, "") != strings.Join(want, "") {
				t.Errorf("tail %d of compressed %v: %d lines", n, compress, len(got))
			}
		}
	}
}

func TestOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Config{Path: path, MaxSize: 500})
	for i := range 50 {
		if err := w.Write("stdout", fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, path, Options{Tail: -1})
	names, _ := filepath.Glob(path + "*")
	if len(names) != 1 || len(got) == 0 || len(got) > 10 || got[len(got)-1] != "line 49\n" {
		t.Errorf("%v %q", names, got)
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if names, _ = filepath.Glob(path + "*"); len(names) != 0 {
		t.Errorf("left %v", names)
	}
}

func TestSinceUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var b []byte
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		b = appendEntry(b, fmt.Appendf(nil, "%d", i), "stdout", nil, at.Add(time.Duration(i)*time.Second))
	}
	os.WriteFile(path, b, 0o600)
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{Tail: -1, Since: at.Add(7 * time.Second)}, "789"},
		{Options{Tail: -1, Until: at.Add(2 * time.Second)}, "012"},
		{Options{Tail: 4, Since: at.Add(3 * time.Second), Until: at.Add(8 * time.Second)}, "678"},
		{Options{Tail: -1, Since: at.Add(time.Hour)}, ""},
		{Options{Tail: 3}, "789"},
		{Options{}, ""},
	} {
		if got := strings.Join(collect(t, path, test.o), ""); got != test.want {
			t.Errorf("%+v: %q, want %q", test.o, got, test.want)
		}
	}
}

func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Config{Path: path})
	w.Write("stdout", []byte("one\n"))
	w.Close()
	f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"log":"tor`)
	f.Close()
	if got := collect(t, path, Options{Tail: -1}); strings.Join(got, "") != "one\n" {
		t.Errorf("%q", got)
	}
	w = open(t, Config{Path: path})
	w.Write("stdout", []byte("two\n"))
	if got := collect(t, path, Options{Tail: -1}); strings.Join(got, "") != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
}

func TestMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := collect(t, path, Options{Tail: -1}); got != nil {
		t.Errorf("%q", got)
	}
}

// TestFollow follows a log that is rotated many times while it is written: no
// line is lost or told twice.
func TestFollow(t *testing.T) {
	for _, c := range []Config{
		{},
		{MaxSize: 4000, MaxFile: 200},
		{MaxSize: 4000, MaxFile: 200, Compress: true},
	} {
		t.Run(fmt.Sprintf("%d-%v", c.MaxSize, c.Compress), func(t *testing.T) {
			c.Path = filepath.Join(t.TempDir(), "log")
			w := open(t, c)
			const n = 5000
			done := make(chan struct{})
			var next atomic.Int64
			ended := make(chan error, 1)
			go func() {
				ended <- Read(context.Background(), c.Path, Options{Tail: -1, Follow: true, Done: done}, func(e Entry) error {
					want := fmt.Sprintf("line %d\n", next.Load())
					if string(e.Line) != want {
						return fmt.Errorf("got %q, want %q", e.Line, want)
					}
					next.Add(1)
					return nil
				})
			}()
			for i := range n {
				if err := w.Write("stdout", fmt.Appendf(nil, "line %d\n", i)); err != nil {
					t.Fatal(err)
				}
				if i%500 == 0 {
					time.Sleep(2 * time.Millisecond)
				}
			}
			w.Close()
			close(done)
			if err := <-ended; err != nil || next.Load() != n {
				t.Errorf("%v after %d lines", err, next.Load())
			}
		})
	}
}

// Following starts before the log is there, and ends with the context.
func TestFollowFromNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(context.Background())
	lines, ended := make(chan string), make(chan error, 1)
	go func() {
		ended <- Read(ctx, path, Options{Tail: -1, Follow: true}, func(e Entry) error { lines <- string(e.Line); return nil })
	}()
	w := open(t, Config{Path: path})
	w.Write("stdout", []byte("first\n"))
	if got := <-lines; got != "first\n" {
		t.Errorf("%q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	w, err := Open(Config{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 10 << 20, MaxFile: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	line := []byte("192.168.1.1 - - [01/Jan/2026] \"GET / HTTP/1.1\" 200 615\n")
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Write("stdout", line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	line := appendEntry(nil, []byte("192.168.1.1 - - [01/Jan/2026] \"GET / HTTP/1.1\" 200 615\n"), "stdout", nil, time.Now())
	var e Entry
	b.ReportAllocs()
	for b.Loop() {
		if err := decode(line, &e); err != nil {
			b.Fatal(err)
		}
	}
}
