package filters_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/filters"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"":                                   "map[]",
		"{}":                                 "map[]",
		"null":                               "map[]",
		`{"label":["a=b","c"]}`:              "map[label:[a=b c]]",
		`{"label":{"c":true,"a=b":true}}`:    "map[label:[a=b c]]", // sorted: a map has no order
		`{"label":{"a":true,"b":false}}`:     "map[label:[a]]",
		`{"label":{"a=b&c=\"d\"":true}}`:     `map[label:[a=b&c="d"]]`,
		`{"name":[],"status":["running"]}`:   "map[name:[] status:[running]]",
		`{"dangling":{"true":true},"id":{}}`: "map[dangling:[true]]",
	} {
		a, err := filters.Parse(s)
		if got := fmt.Sprint(map[string][]string(a)); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", s, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"label=a", "[]", `"x"`, "7", `{"label":"a"}`, `{"label":[1]}`, `{"label":{"a":"yes"}}`, `{"label":["a"]`, `{"a":["b"],"c":{"d":true}}`} {
		if a, err := filters.Parse(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v %v", s, a, err)
		}
	}
}

func TestValidate(t *testing.T) {
	a := filters.Args{"name": {"x"}}
	if err := a.Validate("id", "name"); err != nil {
		t.Error(err)
	}
	if err := a.Validate("id"); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "invalid filter 'name'") {
		t.Error(err)
	}
	if err := filters.Args(nil).Validate(); err != nil {
		t.Error(err)
	}
}

func TestMatching(t *testing.T) {
	a := filters.Args{"name": {"web", "^d.$"}, "bad": {"a(b"}, "empty": {}}
	for _, c := range []struct {
		how   string
		match func(key, v string) bool
		key   string
		v     string
		want  bool
	}{
		{"exact", a.Exact, "name", "web", true},
		{"exact", a.Exact, "name", "webs", false},
		{"exact without terms", a.Exact, "other", "anything", true},
		{"exact with no term left", a.Exact, "empty", "anything", true},
		{"prefix", a.Prefix, "name", "webs", true},
		{"prefix", a.Prefix, "name", "we", false},
		{"prefix without terms", a.Prefix, "other", "x", true},
		{"substring", a.Substring, "name", "my-webs", true},
		{"substring", a.Substring, "name", "db", false},
		{"regexp", a.Regexp, "name", "db", true},
		{"regexp", a.Regexp, "name", "dbs", false},
		{"regexp finds in the middle", a.Regexp, "name", "/web1", true},
		{"regexp that does not compile", a.Regexp, "bad", "xa(by", true},
		{"regexp that does not compile", a.Regexp, "bad", "ab", false},
	} {
		if got := c.match(c.key, c.v); got != c.want {
			t.Errorf("%s of %s with %q: %v", c.how, c.key, c.v, got)
		}
	}
	if a.Has("empty") || !a.Has("name") || len(a.Get("name")) != 2 {
		t.Error("Has or Get")
	}
}

func TestLabels(t *testing.T) {
	labels := map[string]string{"a": "1", "b": "", "url": "x=y"}
	for _, c := range []struct {
		args filters.Args
		want bool
	}{
		{nil, true},
		{filters.Args{"label": {"a"}}, true},
		{filters.Args{"label": {"a=1", "b"}}, true},
		{filters.Args{"label": {"a=1", "c"}}, false}, // all of them, unlike other keys
		{filters.Args{"label": {"a=2"}}, false},
		{filters.Args{"label": {"b="}}, true},
		{filters.Args{"label": {"a="}}, false},
		{filters.Args{"label": {"url=x=y"}}, true},
		{filters.Args{"label!": {"a"}}, false},
		{filters.Args{"label!": {"a=2", "c"}}, true},
		{filters.Args{"label": {"a"}, "label!": {"b"}}, false},
	} {
		if got := c.args.Labels("label", labels); got != c.want {
			t.Errorf("%v: %v", c.args, got)
		}
	}
}

func TestBool(t *testing.T) {
	for _, c := range []struct {
		terms     []string
		def, want bool
		wrong     bool
	}{
		{nil, true, true, false},
		{nil, false, false, false},
		{[]string{"1"}, false, true, false},
		{[]string{"False"}, true, false, false},
		{[]string{"true", "1"}, false, true, false},
		{[]string{"true", "false"}, false, false, true},
		{[]string{"maybe"}, true, false, true},
	} {
		got, err := filters.Args{"dangling": c.terms}.Bool("dangling", c.def)
		if got != c.want || errdefs.IsInvalidArgument(err) != c.wrong {
			t.Errorf("%v: %v %v", c.terms, got, err)
		}
	}
}

// What was parsed and written again in either form means the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "{}", `{"label":["a=b"]}`, `{"label":{"a=b":true,"c":false}}`, `{"a":null}`, "[", `{"a":{"b":1}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := filters.Parse(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Error(err)
			}
			return
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := filters.Parse(string(again))
		if err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%q: %v became %v (%v)", s, a, b, err)
		}
		for k := range a {
			_ = a.Regexp(k, s)
			_ = a.Labels(k, map[string]string{s: s})
		}
	})
}
