// Package sentence makes of errors what a person can act on, where programs meet
// people: the API and the command line. Behind those, errors stay as they are.
//
//	sentence.Of(`option mtu: strconv.Atoi: parsing "abc": invalid syntax`)
//	// option mtu: "abc" is not a number
package sentence

import (
	"regexp"
	"strings"
)

// goTexts are errors of Go's library as they read, and what a person is told
// instead. The first that fits counts.
var goTexts = []struct {
	text *regexp.Regexp
	say  string
}{
	{goText(`netip\.ParsePrefix\(` + quoted + `\): (?:ParseAddr\(` + quoted + `\): |bad bits after slash: ` + quoted + `)?` + reason), `$1 is not a prefix (hint: write it like 192.0.2.0/24 or 2001:db8::/64)`},
	{goText(`(?:netip\.)?ParseAddr\(` + quoted + `\): ` + reason), `$1 is not an IP address (hint: write it like 192.0.2.1 or 2001:db8::1)`},
	{goText(`invalid CIDR address: (\S+)`), `"$1" is not a prefix (hint: write it like 192.0.2.0/24 or 2001:db8::/64)`},
	{goText(`strconv\.ParseBool: parsing ` + quoted + `: invalid syntax`), `$1 is neither true nor false`},
	{goText(`strconv\.\w+: parsing ` + quoted + `: invalid syntax`), `$1 is not a number`},
	{goText(`strconv\.\w+: parsing ` + quoted + `: value out of range`), `$1 is too large or too small`},
}

const (
	quoted = `("(?:[^"\\]|\\.)*")`
	reason = `(?:` + quoted + `|::|[^\n:("])*(?:\(at ` + quoted + `\))?`
)

func goText(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// Of is an error's text for a person: where Go's own library speaks in it,
// in words that say what is wrong with what was given.
func Of(text string) string {
	for _, t := range goTexts {
		if t.text.MatchString(text) {
			return strings.TrimSpace(t.text.ReplaceAllString(text, t.say))
		}
	}
	return text
}
