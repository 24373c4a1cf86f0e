package firewalldoc

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"isle/internal/kernel/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var update = flag.Bool("update", false, "write the listings and what packets get into docs/firewall")

const dir = "../../../docs/firewall"

// TestPages runs every page, and fails when the kernel says something else than
// what the page says.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob(dir + "/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, path := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".md"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := newHost(t).page(string(b))
			if *update && !t.Failed() {
				err = os.WriteFile(path, []byte(got), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !*update && got != string(b) {
				t.Errorf("%s differs (hint: make firewall-docs):\n%s", path, difference(string(b), got))
			}
		})
	}
}

// TestEveryPageIsListed : README.md leads to every page.
func TestEveryPageIsListed(t *testing.T) {
	pages, err := filepath.Glob(dir + "/[0-9]*.md")
	index, rerr := os.ReadFile(dir + "/README.md")
	if err != nil || rerr != nil || len(pages) < 10 {
		t.Fatal(len(pages), err, rerr)
	}
	for _, path := range pages {
		if name := filepath.Base(path); !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("README.md does not lead to %s", name)
		}
	}
}

// TestPageThatIsWrong : what a page says falsely is seen.
func TestPageThatIsWrong(t *testing.T) {
	h := newHost(t)
	for _, row := range []string{
		"| lan | tcp 10.77.0.1:81 | nothing | no rule of ours |",
		"| lan | tcp 10.77.0.1:81 | refused | `ingress` drops: a published port with an allow-list |",
	} {
		page := firstLine + tableHead + "\n|---|---|---|---|\n" + row + "\n"
		if got := h.page(page); got == page {
			t.Errorf("passes: %s", row)
		}
	}
	page := firstLine + "<!-- written: elements -->\n```\ninet isle\n  same \"isle1\" . \"isle1\"\n```\n<!-- end -->\n"
	if got := h.page(page); got == page {
		t.Error("an element that is not there passes")
	}
}

// TestPictures : a picture may name what exists, and nothing else.
func TestPictures(t *testing.T) {
	n := newHost(t).named()
	for picture, want := range map[string]bool{
		"[forward] \"a published port\" @same": true,
		"[ingress] \"in by its own bridge…\"":  true,
		"[forwards]":                           false,
		"@linked":                              false,
		"\"a published\"":                      false,
		"\"another's address…":                 true, // no quotation
	} {
		if got := n.unknown(picture); (len(got) == 0) != want {
			t.Errorf("%s: unknown are %q", picture, got)
		}
	}
}

// difference is the lines that the page and the kernel do not share.
func difference(page, kernel string) string {
	var b strings.Builder
	old, now := strings.Split(page, "\n"), strings.Split(kernel, "\n")
	for _, l := range old {
		if !slices.Contains(now, l) {
			b.WriteString("page    " + l + "\n")
		}
	}
	for _, l := range now {
		if !slices.Contains(old, l) {
			b.WriteString("kernel  " + l + "\n")
		}
	}
	return b.String()
}

const tableHead = "| from | to | gets | decided by |"

// page does what a page says, from above, and returns it as the kernel has it.
func (h *host) page(text string) string {
	h.t.Helper()
	lines := strings.SplitAfter(text, "\n")
	if !strings.HasPrefix(text, firstLine) {
		h.t.Errorf("the page does not begin with %q", firstLine)
	}
	var out []string
	for i := 0; i < len(lines); i++ {
		out = append(out, lines[i])
		switch l := strings.TrimSpace(lines[i]); {
		case l == "```console":
			i = h.copied(&out, lines, i, h.commands)
		case l == "```text":
			i = h.copied(&out, lines, i, h.picture)
		case l == tableHead:
			i = h.table(&out, lines, i)
		case strings.HasPrefix(l, "<!-- written: "):
			out = append(out, h.written(strings.Fields(l)[2]))
			i = find(lines, i, "<!-- end -->") - 1
		case l == "<!-- isled hears of it -->":
			if err := h.manager.Sync(h.t.Context()); err != nil {
				h.t.Error(err)
			}
		}
	}
	return strings.Join(out, "")
}

const firstLine = "<!-- Written by TestPages of internal/network/firewalldoc, which runs the commands and sends the packets. Renew: make firewall-docs -->\n"

// find is the line after i that is end.
func find(lines []string, i int, end string) int {
	for i++; i < len(lines) && strings.TrimSpace(lines[i]) != end; i++ {
	}
	return i
}

// copied hands the lines of a block to do, and copies them.
func (h *host) copied(out *[]string, lines []string, i int, do func([]string)) int {
	end := min(find(lines, i, "```"), len(lines)-1)
	do(lines[i+1 : end])
	*out = append(*out, lines[i+1:end+1]...)
	return end
}

func (h *host) commands(lines []string) {
	for _, l := range lines {
		if cmd, ok := strings.CutPrefix(strings.TrimSpace(l), "$ "); ok {
			if err := h.command(cmd); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

func (h *host) written(what string) string {
	switch what {
	case "tables":
		return h.tables()
	case "elements":
		return h.elements().without(h.base).String()
	case "everything":
		return h.elements().String()
	case "hooks":
		return h.hooks()
	}
	h.t.Errorf("nothing is written that is called %q", what)
	return ""
}

// table asks the questions of a table.
func (h *host) table(out *[]string, lines []string, i int) int {
	*out = append(*out, lines[i+1])
	tr := h.trace()
	for i += 2; i < len(lines) && strings.HasPrefix(lines[i], "|"); i++ {
		c := strings.Split(strings.Trim(lines[i], "|\n"), "|")
		for len(c) < 4 {
			c = append(c, "")
		}
		for k := range c {
			c[k] = strings.TrimSpace(c[k])
		}
		q := h.answered(question{c[0], c[1], c[2], c[3]}, tr)
		*out = append(*out, "| "+strings.Join([]string{q.from, q.to, q.gets, q.way}, " | ")+" |\n")
	}
	tr.stop()
	return i - 1
}

var (
	bracket = regexp.MustCompile(`\[(\w+)\]`)
	atSet   = regexp.MustCompile(`@(\w+)`)
	quoted  = regexp.MustCompile(`"([^"]+)"`)
)

// picture checks that what a picture names exists.
func (h *host) picture(lines []string) {
	for _, u := range h.named().unknown(strings.Join(lines, "")) {
		h.t.Errorf("a picture names %s, which no rule, set or chain is called", u)
	}
}

// unknown are the names in a picture that nothing has. A comment may be cut
// short by "…".
func (n named) unknown(picture string) (out []string) {
	for _, m := range bracket.FindAllStringSubmatch(picture, -1) {
		if !slices.Contains(n.chains, m[1]) {
			out = append(out, m[0])
		}
	}
	for _, m := range atSet.FindAllStringSubmatch(picture, -1) {
		if !slices.Contains(n.sets, m[1]) {
			out = append(out, m[0])
		}
	}
	for _, m := range quoted.FindAllStringSubmatch(picture, -1) {
		start, short := strings.CutSuffix(m[1], "…")
		if !slices.ContainsFunc(n.comments, func(c string) bool { return c == m[1] || short && strings.HasPrefix(c, start) }) {
			out = append(out, m[0])
		}
	}
	return out
}
