package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
)

// TestInside : links of a namespace are seen and go, and what is not there is no error.
func TestInside(t *testing.T) {
	t.Parallel()
	ns := kerneltest.NewNS(t)
	ns.IP("link add left type veth peer name behind\nlink set left up")
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File.Fd())
	links, err := kernel.Visitor{}.Links(path)
	if slices.Sort(links); err != nil || !slices.Equal(links, []string{"behind", "left", "lo"}) {
		t.Fatal(links, err)
	}
	for range 2 {
		if err := (kernel.Visitor{}).RemoveLink(path, "left"); err != nil {
			t.Fatal(err)
		}
	}
	if links, err = (kernel.Visitor{}).Links(path); err != nil || !slices.Equal(links, []string{"lo"}) {
		t.Error(links, err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if links, err = (kernel.Visitor{}).Links(gone); err != nil || len(links) > 0 {
		t.Error(links, err)
	}
	if err := (kernel.Visitor{}).RemoveLink(gone, "eth0"); err != nil {
		t.Error(err)
	}
}
