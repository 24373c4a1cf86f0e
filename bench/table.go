package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	nameWidth  = 52
	valueWidth = 17
	ratioWidth = 12
)

// header names the columns: every engine, then the first one's advantage over
// each of the others.
func (s *session) header(list []engine) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", nameWidth, "")
	for _, e := range list {
		fmt.Fprintf(&b, "%*s", valueWidth, e.name)
	}
	for _, e := range list[1:] {
		fmt.Fprintf(&b, "%*s", ratioWidth, "× "+e.name)
	}
	s.headed = true
	fmt.Fprintln(s.out, b.String())
}

func (s *session) row(m metric, list []engine, values map[string][]float64) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", nameWidth, m.name)
	for _, e := range list {
		fmt.Fprintf(&b, "%*s", valueWidth, cell(m, values[e.name]))
	}
	for _, e := range list[1:] {
		fmt.Fprintf(&b, "%*s", ratioWidth, advantage(m, values[list[0].name], values[e.name]))
	}
	fmt.Fprintln(s.out, b.String())
}

// cell is the median and the worse end.
func cell(m metric, v []float64) string {
	switch {
	case len(v) == 0:
		return "-"
	case len(v) == 1:
		return number(v[0])
	case m.more:
		return fmt.Sprintf("%s (%s)", number(quantile(v, 0.5)), number(quantile(v, 0.05)))
	}
	return fmt.Sprintf("%s (%s)", number(quantile(v, 0.5)), number(quantile(v, 0.95)))
}

// advantage is how many times better ours is than theirs.
func advantage(m metric, ours, theirs []float64) string {
	if len(ours) == 0 || len(theirs) == 0 {
		return "-"
	}
	a, b := quantile(theirs, 0.5), quantile(ours, 0.5)
	if m.more {
		a, b = b, a
	}
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f×", a/b)
}

func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 1000:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// count is "1 port", "2 ports".
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
