package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// TestYield : default routes of others count after ours, in both families, also where
// the kernel has made one of two; other routes are left alone.
func TestYield(t *testing.T) {
	t.Parallel()
	ns := kerneltest.NewNS(t)
	ns.IP(`link add left type veth peer name left1
link add right type veth peer name right1
link set left up
link set left1 up
link set right up
link set right1 up
addr add 10.1.0.2/24 dev left
addr add 10.2.0.2/24 dev right
addr add fd01::2/64 dev left nodad
addr add fd02::2/64 dev right nodad
route add default via 10.1.0.1 dev left proto 73
route prepend default via 10.2.0.1 dev right
route add 10.9.0.0/24 via 10.2.0.1 dev right
-6 route add default via fd01::1 dev left proto 73
-6 route append default via fd02::1 dev right
-6 route add fd09::/64 via fd02::1 dev right`)
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File.Fd())
	for range 2 {
		if err := (kernel.Visitor{}).Yield(path, "right"); err != nil {
			t.Fatal(err)
		}
		out := ns.Run("ip", "route") + ns.Run("ip", "-6", "route")
		for _, want := range []string{
			"default via 10.1.0.1 dev left proto 73 \n", "default via 10.2.0.1 dev right metric 32768", "10.9.0.0/24 via 10.2.0.1 dev right \n",
			"default via fd01::1 dev left proto 73 metric 1024", "default via fd02::1 dev right metric 32768", "fd09::/64 via fd02::1 dev right metric 1024",
		} {
			if !strings.Contains(out, want) {
				t.Fatalf("%q is not in\n%s", want, out)
			}
		}
		if n := strings.Count(out, "default"); n != 4 {
			t.Errorf("%d default routes:\n%s", n, out)
		}
	}
	if err := (kernel.Visitor{}).Yield(path, "nosuch"); err == nil {
		t.Error("a link that is not there has yielded")
	}
}
