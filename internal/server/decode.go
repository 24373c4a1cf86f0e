package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/filters"
)

// maxJSON is the most that a body of JSON may be. Archives have no limit.
const maxJSON = 4 << 20

// decode reads a body of JSON into v. Fields that are not known are ignored,
// wrong types are errors. No body at all leaves v as it is.
//
// Every decision about a request is made on what was decoded here: nothing in
// Isle looks at the bytes of a body beside it (CVE-2024-41110, CVE-2026-34040).
func decode(a *answer, r *http.Request, v any) error {
	if bodyless(r) {
		return nil
	}
	if err := jsonType(r); err != nil {
		return err
	}
	if r.ContentLength > maxJSON { // net/http closes the connection rather than read it
		return fmt.Errorf("request body of %d bytes is larger than %d: %w", r.ContentLength, maxJSON, &http.MaxBytesError{Limit: maxJSON})
	}
	d := json.NewDecoder(http.MaxBytesReader(a.ResponseWriter, r.Body, maxJSON))
	if err := d.Decode(v); err != nil {
		return badJSON(err)
	}
	// Read to the end: what is left in the connection would be taken for
	// stdin after a hijack.
	switch _, err := d.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, new(*http.MaxBytesError)):
		return badJSON(err)
	}
	return invalid("unexpected content after JSON")
}

// require is decode for endpoints that make no sense without a body.
func require(a *answer, r *http.Request, v any) error {
	if bodyless(r) {
		if err := jsonType(r); r.Header.Get("Content-Type") != "" && err != nil {
			return err
		}
		return badJSON(io.EOF)
	}
	return decode(a, r, v)
}

func bodyless(r *http.Request) bool { return r.Body == nil || r.ContentLength == 0 }

func badJSON(err error) error {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return fmt.Errorf("request body is larger than %d bytes: %w", tooLarge.Limit, err)
	}
	if errors.Is(err, io.EOF) {
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return invalid("invalid JSON: %w", err)
}

func jsonType(r *http.Request) error {
	header := r.Header.Get("Content-Type")
	t, _, err := mime.ParseMediaType(header)
	if err != nil {
		return invalid("malformed Content-Type header (%s): %w", header, err)
	}
	if t != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", header)
	}
	return nil
}

// query is the query of a request. Errors of its methods are collected in err.
type query struct {
	url.Values
	err error
}

func queryOf(r *http.Request) *query {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &query{v, invalid("invalid query: %w", err)}
	}
	return &query{v, nil}
}

func (q *query) bad(format string, args ...any) {
	if q.err == nil {
		q.err = invalid(format, args...)
	}
}

// bool is Docker's idea of truth: whatever does not say no.
func (q *query) bool(key string) bool { return truth(q.Get(key)) }

// boolOr is bool with a default for a key that is not there.
func (q *query) boolOr(key string, def bool) bool {
	if !q.Has(key) {
		return def
	}
	return q.bool(key)
}

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// int is def when the key is not there.
func (q *query) int(key string, def int) int {
	s := q.Get(key)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		q.bad("invalid value for %q: %q is not a number", key, s)
	}
	return n
}

// size is a number of lines or columns of a terminal.
func (q *query) size(key string) uint16 {
	n, err := strconv.ParseUint(q.Get(key), 10, 16)
	if err != nil {
		q.bad("invalid resize %s %q: not a number from 0 to 65535", key, q.Get(key))
	}
	return uint16(n)
}

// time reads seconds with a fraction, or RFC 3339. The zero time is none.
func (q *query) time(key string) time.Time {
	t, err := parseTime(q.Get(key))
	if err != nil {
		q.bad("invalid value for %q: %w", key, err)
	}
	return t
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither seconds since 1970 nor RFC 3339", s)
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	var nsec int64
	if fraction != "" {
		if !digits(fraction) {
			return time.Time{}, fmt.Errorf("%q is neither seconds since 1970 nor RFC 3339", s)
		}
		nsec, _ = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	if strings.HasPrefix(whole, "-") {
		nsec = -nsec
	}
	return time.Unix(sec, nsec), nil
}

// filters reads the parameter of that name; keys that are not known are errors.
func (q *query) filters(known ...string) filters.Args {
	f, err := filters.Parse(q.Get("filters"))
	if err == nil {
		err = f.Validate(known...)
	}
	if err != nil && q.err == nil {
		q.err = err
	}
	return f
}

// platform reads "os[/arch[/variant]]" or JSON of an OCI platform. Nil is none.
func (q *query) platform(key string) *ocispec.Platform {
	all := q.platforms(key)
	if len(all) > 1 {
		q.bad("only one %s may be given", key)
	}
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

func (q *query) platforms(key string) []ocispec.Platform {
	var all []ocispec.Platform
	for _, s := range q.Values[key] {
		if s == "" {
			continue
		}
		p, err := parsePlatform(s)
		if err != nil {
			q.bad("failed to parse platform: %w", err)
		}
		all = append(all, p)
	}
	return all
}

func parsePlatform(s string) (ocispec.Platform, error) {
	if !strings.HasPrefix(s, "{") {
		p, err := platforms.Parse(s)
		if err != nil {
			return p, fmt.Errorf("platform %q: %w", s, err)
		}
		return p, nil
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, fmt.Errorf("platform %q: %w", s, err)
	}
	if p.OS == "" || p.Architecture == "" {
		return p, fmt.Errorf("platform %q: both os and architecture must be provided", s)
	}
	return p, nil
}

// auth reads the credentials of a header. Docker lets requests with a header
// that it cannot read go on without credentials, and so do we: the registry
// refuses what needs them. Nil is none.
func auth(r *http.Request) *registry.AuthConfig {
	header := r.Header.Get("X-Registry-Auth")
	if header == "" {
		return nil
	}
	a, err := authconfig.Decode(header)
	if err != nil || *a == (registry.AuthConfig{}) {
		return nil
	}
	return a
}

// words is a list of words that old clients send as one string.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}
