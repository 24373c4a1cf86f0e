package applet

import (
	"fmt"
	"strconv"
	"strings"
)

// Size reads "64m", "1g", "4096" as bytes.
func Size(text string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(text), "ib")
	shift := 0
	if digits != "" {
		if i := strings.IndexByte("kmgt", digits[len(digits)-1]); i >= 0 {
			shift, digits = 10*(i+1), digits[:len(digits)-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("size %q is not a number with k, m, g or t", text)
	}
	return n << shift, nil
}

// Human is n as people read it: 1.5M.
func Human(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + units[i:i+1]
}
