package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestAdvantageIsOursWhicheverIsBetter(t *testing.T) {
	for _, c := range []struct {
		m            metric
		ours, theirs float64
		want         string
	}{
		{metric{"start, ms", false}, 10, 30, "3.00×"},
		{metric{"Gbit/s", true}, 30, 10, "3.00×"},
		{metric{"Gbit/s", true}, 10, 20, "0.50×"},
		{metric{"rules", false}, 0, 20, "-"},
	} {
		if got := advantage(c.m, []float64{c.ours}, []float64{c.theirs}); got != c.want {
			t.Errorf("%s, ours %v, theirs %v: %s, want %s", c.m.name, c.ours, c.theirs, got, c.want)
		}
	}
}

func TestCountsRulesAndElements(t *testing.T) {
	ruleset := `{"nftables":[{"metainfo":{"version":"1.1"}},{"table":{"name":"isle"}},{"chain":{"name":"publish"}},
		{"rule":{"expr":[]}},{"rule":{"expr":[{"xt":null}]}},
		{"set":{"name":"links","elem":["isle0","isle1"]}},{"set":{"name":"empty"}},
		{"map":{"name":"anyports4","elem":[[{"concat":["tcp",80]},{"concat":["172.17.0.2",80]}]]}}]}`
	if n, err := countFirewall([]byte(ruleset)); err != nil || n != 5 {
		t.Errorf("%d, %v; want 2 rules and 3 elements", n, err)
	}
}

func TestEngines(t *testing.T) {
	list, err := parseEngines("podman==17=10.91.4.1=nsenter -t 17 -- podman --root=/x,bare==18=10.91.5.1=,outside==19==")
	if err != nil {
		t.Fatal(err)
	}
	if p := list[0]; p.host != "17" || p.addr != "10.91.4.1" || strings.Join(p.cli, " ") != "nsenter -t 17 -- podman --root=/x" {
		t.Errorf("podman is %+v", p)
	}
	s := session{all: list}
	outside, bare, err := s.outside()
	if err != nil || outside.name != "outside" || bare.name != "bare" || len(s.engines(false)) != 1 {
		t.Errorf("outside %v, bare %v, engines %v, %v", outside.name, bare.name, s.engines(false), err)
	}
}

func TestGroups(t *testing.T) {
	if _, err := chooseGroups("path,dsn"); err == nil || !strings.Contains(err.Error(), `no group "dsn"`) {
		t.Errorf("a misspelt group: %v", err)
	}
	chosen, err := chooseGroups("dns,life")
	if err != nil || len(chosen) != 2 || chosen[0].name != "life" {
		t.Errorf("%v, %v", chosen, err)
	}
}

func TestCountsRise(t *testing.T) {
	var c counts
	if err := c.Set("1,100,1000"); err != nil || c.String() != "1,100,1000" {
		t.Errorf("%s, %v", c.String(), err)
	}
	for _, bad := range []string{"", "0", "5,5", "9,1", "x"} {
		if c.Set(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// An engine that fails is left out, with a note; the others go on.
func TestTrialGoesOnWithoutTheBroken(t *testing.T) {
	var out strings.Builder
	s := session{all: []engine{{name: "isle"}, {name: "docker"}, {name: "podman"}}, out: &out}
	tries := map[string]int{}
	got := s.run(context.Background(), trial{metrics: []metric{{name: "start, ms"}}, engines: s.all, rounds: 3, fn: func(_ context.Context, e engine, round int) ([]float64, error) {
		tries[e.name]++
		if e.name == "docker" && round == 1 {
			return nil, errors.New("no space left")
		}
		return []float64{float64(round)}, nil
	}})
	if tries["isle"] != 4 || tries["docker"] != 2 || len(got["start, ms"]["isle"]) != 3 {
		t.Errorf("tries %v, samples %v: a round to warm up and three more are wanted, none after a failure", tries, got)
	}
	if len(s.failed) != 1 || !strings.Contains(out.String(), "docker: start, ms: no space left") {
		t.Errorf("failures %v, printed %s", s.failed, out.String())
	}
}
