package cni

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"
)

var example = regexp.MustCompile("(?s)```json\n(.*?)```")

// TestExamples : what docs/cni.md tells people to write is taken.
func TestExamples(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("../../contrib/cni/10-isle.conflist")
	if err != nil {
		t.Fatal(err)
	}
	blocks := example.FindAllSubmatch(page, -1)
	if len(blocks) < 4 || string(blocks[0][1]) != string(first) {
		t.Errorf("%d examples; the first is not contrib/cni/10-isle.conflist", len(blocks))
	}
	for _, b := range blocks {
		for _, plugin := range plugins(t, b[1]) {
			c, err := Parse(Request{Command: Add, ContainerID: "pod", NetNS: "/run/netns/pod", IfName: "eth0", Config: plugin})
			if err != nil || c.Network == "" {
				t.Errorf("%s\n%v", plugin, err)
			}
		}
	}
}

// plugins are the configurations of isle-cni in a list, as a runtime hands them over.
func plugins(t *testing.T, list []byte) (out [][]byte) {
	var l struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(list, &l); err != nil {
		t.Fatalf("%s\n%v", list, err)
	}
	for _, p := range l.Plugins {
		if p["type"] != "isle-cni" {
			continue
		}
		p["name"], p["cniVersion"] = l.Name, l.CNIVersion
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		t.Errorf("no isle-cni in %s", list)
	}
	return out
}
