package image

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/filters"
)

var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02",
}

// untilTime reads the "until" filter: a duration back from now, seconds since
// 1970, or a date.
func untilTime(f filters.Args) (time.Time, error) {
	if !f.Has("until") {
		return time.Time{}, nil
	}
	if len(f.Get("until")) > 1 {
		return time.Time{}, fmt.Errorf("more than one until filter specified: %w", errdefs.ErrInvalidArgument)
	}
	v := f.Get("until")[0]
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	whole, part, _ := strings.Cut(v, ".")
	if sec, err := strconv.ParseInt(whole, 10, 64); err == nil {
		nsec, _ := strconv.ParseInt((part + "000000000")[:9], 10, 64)
		return time.Unix(sec, nsec), nil
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid filter 'until=%s': %w", v, errdefs.ErrInvalidArgument)
}
