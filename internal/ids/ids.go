// Package ids makes the identifiers of Isle's objects: 64 hexadecimal digits,
// as Docker's are, of which the first twelve are shown to people.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// ShortLen is how much of an id people are shown.
const ShortLen = 12

var pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// New returns a fresh id. One that reads as a decimal number in its short form
// is thrown away: such an id cannot be a host name (RFC 1123 aside, resolvers
// take it for an address).
func New() string {
	var b [32]byte
	for {
		rand.Read(b[:])
		if id := hex.EncodeToString(b[:]); !numeric(id[:ShortLen]) {
			return id
		}
	}
}

// Short returns the form of id that people are shown.
func Short(id string) string {
	if len(id) <= ShortLen {
		return id
	}
	return id[:ShortLen]
}

// Valid reports whether s is a whole id.
func Valid(s string) bool { return pattern.MatchString(s) }

func numeric(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
