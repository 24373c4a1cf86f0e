package text

import (
	"regexp"
	"strings"
)

// compile makes a regular expression of a pattern in POSIX's basic syntax, or in
// the extended one.
func compile(pattern string, extended, ignoreCase bool) (*regexp.Regexp, error) {
	if !extended {
		pattern = fromBasic(pattern)
	}
	if ignoreCase {
		pattern = "(?i)" + pattern
	}
	return regexp.Compile(pattern)
}

// fromBasic swaps the meaning of (, ), {, }, |, + and ? with and without
// backslash. A * at the beginning is a plain one.
func fromBasic(p string) string {
	var b strings.Builder
	inSet := false
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case inSet:
			inSet = c != ']' || p[i-1] == '['
			b.WriteByte(c)
		case c == '[':
			inSet = true
			b.WriteByte(c)
		case c == '\\' && i+1 < len(p):
			i++
			if !strings.ContainsRune("(){}|+?", rune(p[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(p[i])
		case strings.ContainsRune("(){}|+?", rune(c)), c == '*' && b.Len() == 0:
			b.WriteString("\\" + string(c))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
