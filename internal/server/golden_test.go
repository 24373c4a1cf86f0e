package server_test

import (
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the answers into testdata")

var date = regexp.MustCompile(`(?m)^Date: .*\n`)

// Every answer to the byte, as it goes over the wire: testdata/golden.txtar
// has requests ("NAME <") and what came back ("NAME >").
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := &txtar.Archive{Comment: ar.Comment}
	for i, f := range ar.Files {
		name, ok := strings.CutSuffix(f.Name, " <")
		if !ok {
			continue
		}
		got := exchange(t, string(f.Data))
		out.Files = append(out.Files, f, txtar.File{Name: name + " >", Data: []byte(got)})
		if *update {
			continue
		}
		if i+1 == len(ar.Files) || ar.Files[i+1].Name != name+" >" {
			t.Errorf("%s: no answer; run with -update", name)
			continue
		}
		if diff := cmp.Diff(string(ar.Files[i+1].Data), got); diff != "" {
			t.Errorf("%s (- golden, + now):\n%s", name, diff)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// exchange sends a request and returns all that comes back, with plain line
// ends and without the date.
func exchange(t *testing.T, request string) string {
	t.Helper()
	h := serve(t, fake())
	c := h.dial()
	defer c.Close()
	head, body, _ := strings.Cut(strings.TrimSuffix(request, "\n"), "\n\n")
	head = strings.ReplaceAll(head+"\nHost: isle\nConnection: close\n\n", "\n", "\r\n")
	if _, err := io.WriteString(c, head+body); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	text := date.ReplaceAllString(strings.ReplaceAll(string(b), "\r\n", "\n"), "")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}
