package server

import (
	"strconv"
	"strings"
)

// version is the minor number of a version of the API: 52 is 1.52.
type version int

const (
	oldest version = 24
	newest version = 52
)

// MinVersion and MaxVersion are the versions of the API that are spoken.
const (
	MinVersion = "1.24"
	MaxVersion = "1.52"
)

func (v version) String() string { return "1." + strconv.Itoa(int(v)) }

// splitVersion takes "/v1.NN" off path. Without one the newest is meant.
func splitVersion(path string) (rest string, v version, err error) {
	head, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	major, minor, ok := parseVersion(head)
	switch {
	case !ok:
		return path, newest, nil
	case major > 1 || major == 1 && minor > int(newest):
		return "", newest, invalid("client version %s is too new. Maximum supported API version is %s", head[1:], newest)
	case major < 1 || minor < int(oldest):
		return "", newest, invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", head[1:], oldest)
	}
	return "/" + rest, version(minor), nil
}

func parseVersion(s string) (major, minor int, ok bool) {
	a, b, dot := strings.Cut(strings.TrimPrefix(s, "v"), ".")
	if !dot || !strings.HasPrefix(s, "v") || !digits(a) || !digits(b) {
		return 0, 0, false
	}
	// What does not fit is certainly too new.
	major, minor = 1<<30, 1<<30
	if n, err := strconv.Atoi(a); err == nil {
		major = n
	}
	if n, err := strconv.Atoi(b); err == nil {
		minor = n
	}
	return major, minor, true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
