package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// effect is one thing that a rule of somebody else's keeps from working.
type effect struct {
	severity string
	subject  string
	problem  string // with %s for who
	who      string
	family   string // "": who says it
	hint     string
}

// stops are effects by what they are due to: that is one finding, however much it
// stops.
type stops struct {
	order []string
	by    map[string][]effect
}

func (s *stops) add(cause string, e effect) {
	if s.by == nil {
		s.by = map[string][]effect{}
	}
	if s.by[cause] == nil {
		s.order = append(s.order, cause)
	}
	s.by[cause] = append(s.by[cause], e)
}

func (s *stops) findings() (out []Finding) {
	for _, cause := range s.order {
		f := Finding{Severity: Warning, Cause: cause}
		var subjects, hints []string
		for _, e := range s.by[cause] {
			if e.severity == Error {
				f.Severity = Error
			}
			subjects, hints = with(subjects, e.subject), with(hints, e.hint)
		}
		if f.Subject = thisHost; len(subjects) == 1 {
			f.Subject = subjects[0]
		}
		f.Problem, f.Hint = problems(s.by[cause]), strings.Join(hints, " && ")
		out = append(out, f)
	}
	return out
}

// with is list and s, once.
func with(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// problems says who is kept from what, those together who are kept from the same.
func problems(effects []effect) string {
	families := map[[2]string][]string{} // by problem and who
	for _, e := range effects {
		k := [2]string{e.problem, e.who}
		families[k] = with(families[k], e.family)
	}
	var order []string
	who := map[string][]string{}
	for _, e := range effects {
		text := e.problem
		if f := families[[2]string{e.problem, e.who}]; len(f) > 0 {
			text += " (" + strings.Join(f, ", ") + ")"
		}
		order, who[text] = with(order, text), with(who[text], e.who)
	}
	for i, text := range order {
		order[i] = fmt.Sprintf(text, some(who[text]))
	}
	return strings.Join(order, "; ")
}

// named is how many are called by their names.
const named = 8

func some(list []string) string {
	if len(list) <= named {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:named], ", "), len(list)-named)
}
