package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"isle/internal/toolbox/applet"
)

var dateVerbs = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'N': "000000000", 'y': "06", 'e': "_2", 'I': "03", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'Z': "MST", 'z': "-0700", 'j': "002",
	'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06", 'c': "Mon Jan _2 15:04:05 2006",
}

// Date prints the time: date [-u] [-I[seconds]] [-d @SECONDS] [+FORMAT].
func Date(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "date [-u] [-I] [-d @SECONDS] [+FORMAT]")
	utc := fs.BoolP("utc", "u", false, "in UTC")
	iso := fs.BoolP("iso-8601", "I", false, "like 2006-01-02T15:04:05Z")
	of := fs.StringP("date", "d", "", "another time: @SECONDS or RFC 3339")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	t, err := dateOf(*of)
	if err != nil {
		return err
	}
	if *utc {
		t = t.UTC()
	}
	format := "+%a %b %e %H:%M:%S %Z %Y"
	if fs.NArg() > 0 {
		format = fs.Arg(0)
	}
	if *iso {
		fmt.Fprintln(s.Out, t.Format(time.RFC3339))
		return nil
	}
	text, ok := strings.CutPrefix(format, "+")
	if !ok {
		return fmt.Errorf("format %q does not begin with +", format)
	}
	fmt.Fprintln(s.Out, formatDate(t, text))
	return nil
}

func dateOf(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	var seconds int64
	if _, err := fmt.Sscanf(text, "@%d", &seconds); err == nil {
		return time.Unix(seconds, 0), nil
	}
	return time.Parse(time.RFC3339, text)
}

func formatDate(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch v := dateVerbs[format[i]]; {
		case format[i] == 's':
			fmt.Fprint(&b, t.Unix())
		case format[i] == 'N':
			fmt.Fprintf(&b, "%09d", t.Nanosecond())
		case format[i] == 'n':
			b.WriteByte('\n')
		case v != "":
			b.WriteString(t.Format(v))
		default:
			b.WriteByte(format[i])
		}
	}
	return b.String()
}
