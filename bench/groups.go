package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// group is a set of cases that share what they are made ready with.
type group struct {
	name, about string
	run         func(context.Context, *session) error
	takes       func(options) time.Duration // about, on a quiet machine with 2 CPUs
}

// groups are in this order because what runs many containers disturbs the rest.
func groups() []group {
	return []group{
		{"life", "a container's life, ms", life, takesLife},
		{"path", "bytes, round trips and connections to a published port", path, takesPath},
		{"lan", "an endpoint on the LAN, from a neighbour, beside a link made by hand", lan, takesLAN},
		{"overlay", "two hosts of a cluster: the way between containers, and when one knows of the other's", overlay, takesOverlay},
		{"dns", "names asked for from inside a container", names, takesNames},
		{"publish", "the start of one container with many ports", publish, takesPublish},
		{"slope", "one more container among many", slope, takesSlope},
		{"cni", "a namespace of another runtime, by CNI", attachByCNI, takesCNI},
		{"start", "a container with 32 ports, among many", crowd, takesCrowd},
	}
}

func groupNames() []string {
	var names []string
	for _, g := range groups() {
		names = append(names, g.name)
	}
	return names
}

// chooseGroups gives those of a list "a,b", or "all".
func chooseGroups(list string) ([]group, error) {
	if list == "all" || list == "" {
		return groups(), nil
	}
	want := strings.Split(list, ",")
	for _, name := range want {
		if !slices.Contains(groupNames(), name) {
			return nil, fmt.Errorf("no group %q; there are %s", name, strings.Join(groupNames(), ", "))
		}
	}
	return slices.DeleteFunc(groups(), func(g group) bool { return !slices.Contains(want, g.name) }), nil
}

// announce says what is coming and how long it will take.
func (s *session) announce(chosen []group) {
	var total time.Duration
	var parts []string
	for _, g := range chosen {
		t := g.takes(s.options)
		total += t
		parts = append(parts, fmt.Sprintf("%s %s", g.name, t.Round(5*time.Second)))
	}
	fmt.Fprintf(s.out, "about %s on a quiet machine (%s); median (95th percentile); × above 1: %s is ahead\n",
		total.Round(10*time.Second), strings.Join(parts, ", "), s.all[0].name)
}
