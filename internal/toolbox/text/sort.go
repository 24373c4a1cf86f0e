package text

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"isle/internal/toolbox/applet"
)

type order struct {
	numeric, human, version, reverse, fold bool
	key                                    span
	sep                                    string
}

// Sort sorts lines.
func Sort(_ context.Context, s applet.IO, args []string) error {
	var o order
	fs := applet.Flags(s, "sort [-nhVrufs] [-k FIELD[,FIELD]] [-t CHAR] [FILE…]")
	fs.BoolVarP(&o.numeric, "numeric-sort", "n", false, "by number")
	fs.BoolVarP(&o.human, "human-numeric-sort", "h", false, "by number with K, M, G")
	fs.BoolVarP(&o.version, "version-sort", "V", false, "numbers in text by value")
	fs.BoolVarP(&o.reverse, "reverse", "r", false, "the other way round")
	fs.BoolVarP(&o.fold, "ignore-case", "f", false, "letters in any case")
	fs.BoolP("stable", "s", false, "always so")
	fs.StringVarP(&o.sep, "field-separator", "t", "", "what separates fields")
	unique := fs.BoolP("unique", "u", false, "each once")
	key := fs.StringP("key", "k", "", "sort by these fields")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	if err := o.setKey(*key); err != nil {
		return err
	}
	var lines []string
	err := applet.Each(s, fs.Args(), func(_ string, r io.Reader) error {
		return eachLine(r, func(line string) bool { lines = append(lines, line); return true })
	})
	slices.SortStableFunc(lines, o.compare)
	if *unique {
		lines = slices.CompactFunc(lines, func(a, b string) bool { return o.compare(a, b) == 0 })
	}
	for _, line := range lines {
		fmt.Fprintln(s.Out, line)
	}
	return err
}

// setKey reads "2", "2,3", "2n", "2,2nr".
func (o *order) setKey(key string) error {
	if key == "" {
		return nil
	}
	a, b, _ := strings.Cut(key, ",")
	for _, l := range strings.TrimLeft(a, "0123456789.") + strings.TrimLeft(b, "0123456789.") {
		o.numeric, o.reverse = o.numeric || l == 'n', o.reverse || l == 'r'
	}
	const letters = "bdfghinrV"
	from, err1 := number(strings.TrimRight(a, letters), 1)
	to, err2 := number(strings.TrimRight(b, letters), 0)
	if err1 != nil || err2 != nil || from < 1 {
		return fmt.Errorf("key %q is not FIELD[,FIELD]", key)
	}
	o.key = span{from, to}
	return nil
}

func (o order) field(line string) string {
	if o.key.from == 0 {
		return line
	}
	parts, sep := strings.Fields(line), " "
	if o.sep != "" {
		parts, sep = strings.Split(line, o.sep), o.sep
	}
	return pick(parts, []span{o.key}, sep)
}

func (o order) compare(a, b string) int {
	x, y := o.field(a), o.field(b)
	if o.fold {
		x, y = strings.ToLower(x), strings.ToLower(y)
	}
	c := 0
	switch {
	case o.numeric || o.human:
		c = compareNumbers(o.value(x), o.value(y))
	case o.version:
		c = natural(x, y)
	default:
		c = strings.Compare(x, y)
	}
	if c == 0 && o.key.from != 0 {
		c = strings.Compare(a, b)
	}
	if o.reverse {
		return -c
	}
	return c
}

func compareNumbers(x, y float64) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// value is the number that text begins with.
func (o order) value(text string) float64 {
	text = strings.TrimSpace(text)
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == '.' || end == 0 && text[end] == '-') {
		end++
	}
	v, _ := strconv.ParseFloat(text[:end], 64) // no number counts as zero
	if o.human && end < len(text) {
		for range strings.IndexByte("KMGTPE", text[end]&^0x20) + 1 {
			v *= 1024
		}
	}
	return v
}

// natural compares runs of digits by their value.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, restA := run(a)
		y, restB := run(b)
		if c := compareRuns(x, y); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return strings.Compare(a, b)
}

func compareRuns(x, y string) int {
	n, err1 := strconv.ParseUint(x, 10, 64)
	m, err2 := strconv.ParseUint(y, 10, 64)
	if err1 == nil && err2 == nil && n != m {
		return compareNumbers(float64(n), float64(m))
	}
	return strings.Compare(x, y)
}

// run splits text after its first run of digits or of other characters.
func run(text string) (first, rest string) {
	digit := func(i int) bool { return text[i] >= '0' && text[i] <= '9' }
	i := 1
	for i < len(text) && digit(i) == digit(0) {
		i++
	}
	return text[:i], text[i:]
}
