package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"isle/internal/toolbox/applet"
)

// Sleep waits: sleep 1.5, 2m, 1h, 1d, infinity. Several add up.
func Sleep(ctx context.Context, s applet.IO, args []string) error {
	var total time.Duration
	for _, a := range args {
		d, err := span(a)
		if err != nil {
			return err
		}
		total += d
	}
	if len(args) == 0 {
		fmt.Fprintln(s.Err, "usage: sleep SECONDS[smhd]… | infinity")
		return applet.Usage
	}
	select {
	case <-ctx.Done():
	case <-time.After(total):
	}
	return nil
}

// forever is "infinity": a century.
const forever = 100 * 365 * 24 * time.Hour

func span(text string) (time.Duration, error) {
	if text == "infinity" || text == "inf" {
		return forever, nil
	}
	units := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	number := strings.TrimRight(text, "smhd")
	unit, known := units[text[len(number):]]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || !known {
		return 0, fmt.Errorf("%q is not a time", text)
	}
	return time.Duration(min(n*float64(unit), float64(forever))), nil
}
