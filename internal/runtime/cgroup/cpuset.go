package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// maxSet bounds the numbers of a set, as the kernel bounds processors; it keeps
// "0-4000000000" from eating the memory.
const maxSet = 8192

// parseSet reads a list such as "0-2,7".
func parseSet(s string) (map[int]bool, error) {
	set := map[int]bool{}
	if s = strings.TrimSpace(s); s == "" {
		return set, nil
	}
	for _, part := range strings.Split(s, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			hi = lo
		}
		from, err := strconv.ParseUint(lo, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", lo)
		}
		to, err := strconv.ParseUint(hi, 10, 16)
		if err != nil || to < from || to >= maxSet {
			return nil, fmt.Errorf("%q is not a range", part)
		}
		for i := from; i <= to; i++ {
			set[int(i)] = true
		}
	}
	return set, nil
}

// subset reports whether every number of want is in have.
func subset(want, have map[int]bool) bool {
	for n := range want {
		if !have[n] {
			return false
		}
	}
	return true
}
