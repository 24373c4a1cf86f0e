package firewalldoc

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"isle/internal/netspec"
)

// listing is both our tables as nft prints them.
func (h *host) listing() string {
	h.t.Helper()
	return h.names.show(h.run("nft", "list", "table", "inet", "isle") + h.run("nft", "list", "table", "bridge", "isle"))
}

// tables is the listing without its sets that are empty: they are in table.nft.
func (h *host) tables() string {
	text := regexp.MustCompile(`(?m)^\t(set|map) \S+ \{\n(\t\t(type|flags) .*\n)+\t\}\n\n?`).ReplaceAllString(h.listing(), "")
	return "```\n" + text + "```\n"
}

// elements are lines by what they are in: "inet isle/anyports4".
type elements map[string][]string

var (
	tableLine    = regexp.MustCompile(`^table (\w+ \w+) \{`)
	setLine      = regexp.MustCompile(`^\t(?:set|map) (\w+) \{`)
	elementsLine = regexp.MustCompile(`^\t\t(?:elements = \{)? *(.*?),?(?: \})?$`)
)

// elements are all that changes at run time: of the tables, of eBPF's maps, and
// the guards of bridges.
func (h *host) elements() elements {
	h.t.Helper()
	es := elements{}
	var table, set string
	within := false
	for line := range strings.Lines(h.listing()) {
		line = strings.TrimRight(line, "\n")
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := setLine.FindStringSubmatch(line); m != nil {
			set = m[1]
		}
		if within = within || strings.HasPrefix(line, "\t\telements = {"); within {
			es.add(table+"/"+set, strings.Split(strings.TrimSpace(elementsLine.FindStringSubmatch(line)[1]), ", ")...)
			within = !strings.HasSuffix(line, "}")
		}
	}
	h.redirects(es)
	h.guards(es)
	return es
}

func (es elements) add(where string, lines ...string) { es[where] = append(es[where], lines...) }

// redirects are the entries of eBPF's maps.
func (h *host) redirects(es elements) {
	var los []netspec.Loopback
	for _, o := range h.observe() {
		switch o := o.(type) {
		case netspec.Loopback:
			los = append(los, o)
		case netspec.DNSRedirect:
			es.add("eBPF, connect/"+string(o.NS), fmt.Sprintf("127.0.0.11:53 → 127.0.0.11:%d, where isled answers", o.Port))
		}
	}
	for _, l := range joined(los) {
		es.add("eBPF, connect/host", fmt.Sprintf("%s %s:%s → %s:%s", l.Proto, bracketed(l.HostIP.String()), row(l.HostPort, l.Count), bracketed(l.To.String()), row(l.ToPort, l.Count)))
	}
}

func bracketed(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

func row(first, count uint16) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", first, first+count-1)
	}
	return fmt.Sprint(first)
}

// joined makes one of those that follow each other.
func joined(los []netspec.Loopback) (out []netspec.Loopback) {
	slices.SortFunc(los, func(a, b netspec.Loopback) int {
		return cmp.Or(strings.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	for _, l := range los {
		if n := len(out); n > 0 {
			next := out[n-1]
			next.HostPort, next.ToPort, next.Count = next.HostPort+next.Count, next.ToPort+next.Count, l.Count
			if next == l {
				out[n-1].Count += l.Count
				continue
			}
		}
		out = append(out, l)
	}
	return out
}

// guards are the programs on our bridges.
func (h *host) guards(es elements) {
	for _, o := range h.observe() {
		g, ok := o.(netspec.Guard)
		if !ok {
			continue
		}
		es.add("eBPF, tc/"+h.names.show(g.Link), "egress: isle_guard")
		if g.Internal {
			es.add("eBPF, tc/"+h.names.show(g.Link), "ingress: isle_inside")
		}
	}
}

// without are the lines of es that are not in other.
func (es elements) without(other elements) elements {
	out := elements{}
	for where, lines := range es {
		for _, l := range lines {
			if !slices.Contains(other[where], l) {
				out.add(where, l)
			}
		}
	}
	return out
}

// String has a line for each element, in an order that does not depend on the
// kernel's.
func (es elements) String() string {
	var b strings.Builder
	group := ""
	for _, where := range slices.SortedFunc(maps.Keys(es), compareGroups) {
		g, set, _ := strings.Cut(where, "/")
		if g != group {
			group = g
			fmt.Fprintln(&b, g)
		}
		slices.Sort(es[where])
		for i, l := range es[where] {
			if i > 0 {
				set = ""
			}
			fmt.Fprintf(&b, "  %-12s %s\n", set, l)
		}
	}
	return "```\n" + b.String() + "```\n"
}

// compareGroups puts what is routed first, then what stays on a bridge, then eBPF.
func compareGroups(a, b string) int {
	rank := func(s string) int {
		return slices.IndexFunc([]string{"inet", "bridge", "eBPF"}, func(p string) bool { return strings.HasPrefix(s, p) })
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

var hookLine = regexp.MustCompile(`^\t\ttype (\w+) hook (\w+) priority ([\w -]+?); policy accept;`)

// priorities that nft has names for, by family.
var priorities = map[string]string{
	"inet raw": "-300 (`raw`)", "inet mangle": "-150 (`mangle`)", "inet dstnat": "-100 (`dstnat`)", "inet filter": "0 (`filter`)", "inet srcnat": "100 (`srcnat`)",
	"bridge dstnat": "-300 (`dstnat`)",
}

// hooks is a row for each chain that the kernel calls.
func (h *host) hooks() string {
	b := strings.Builder{}
	b.WriteString("| table | chain | type | hook | priority |\n|---|---|---|---|---|\n")
	var table, chain string
	for line := range strings.Lines(h.listing()) {
		if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := chainLine.FindStringSubmatch(line); m != nil {
			chain = m[1]
		} else if m := hookLine.FindStringSubmatch(line); m != nil {
			family, _, _ := strings.Cut(table, " ")
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", table, chain, m[1], m[2], cmp.Or(priorities[family+" "+m[3]], m[3]))
		}
	}
	return b.String()
}

var (
	chainLine   = regexp.MustCompile(`^\tchain (\w+) \{`)
	commentText = regexp.MustCompile(`comment "([^"]*)"`)
)

// named is what pictures may name.
type named struct{ chains, sets, comments []string }

func (h *host) named() (n named) {
	text := h.listing()
	for line := range strings.Lines(text) {
		if m := chainLine.FindStringSubmatch(line); m != nil {
			n.chains = append(n.chains, m[1])
		} else if m := setLine.FindStringSubmatch(line); m != nil {
			n.sets = append(n.sets, m[1])
		} else if m := commentText.FindStringSubmatch(line); m != nil {
			n.comments = append(n.comments, m[1])
		}
	}
	return n
}
