package toolbox

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"isle/internal/toolbox/applets"
)

func TestListIsTable(t *testing.T) {
	list, table := slices.Sorted(slices.Values(applets.Names)), slices.Sorted(maps.Keys(commands()))
	if d := cmp.Diff(list, table); d != "" {
		t.Errorf("applets.Names and the dispatch table differ (-list +table):\n%s", d)
	}
}
