package netns_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ns")
	d, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	if again, err := netns.Open(path); err != nil || again != d {
		t.Fatalf("a second time: %v, %v", again, err)
	}
	c, err := d.New("a")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.New("a"); err != nil || again != c {
		t.Errorf("made again: cookie %d, was %d, %v", again, c, err)
	}
	if other, err := d.New("b"); err != nil || other == c {
		t.Errorf("another one: cookie %d, %v", other, err)
	}
	if err := os.WriteFile(d.File("stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Cookie("stray"); !errors.Is(err, os.ErrNotExist) { // one that ends loses its mount before its file
		t.Errorf("a file without a namespace: %v", err)
	}
	if names, err := d.List(); err != nil || len(names) != 2 {
		t.Errorf("names: %v, %v", names, err)
	}
	if _, err := netns.Open(path); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(path); err != nil || len(es) != 2 { // whoever deleted it was killed on the way
		t.Errorf("files after the next start: %v, %v", es, err)
	}
	for range 2 {
		for _, n := range []string{"a", "b"} {
			if err := d.Delete(n); err != nil {
				t.Error(err)
			}
		}
	}
	if names, err := d.List(); err != nil || len(names) != 0 {
		t.Errorf("names after the end: %v, %v", names, err)
	}
}

func TestNames(t *testing.T) {
	d := netns.Dir{Path: t.TempDir()}
	for _, n := range []string{"", "..", "../x", "a/b", "/x"} {
		if _, err := d.New(n); err == nil {
			t.Errorf("namespace %q was made", n)
		}
	}
}

// TestThreadsComeBack : whatever goroutines do meanwhile, none runs in a
// namespace that is not its own.
func TestThreadsComeBack(t *testing.T) {
	ns := kerneltest.NewNS(t)
	home, err := netns.CookieHere()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		enter := netns.Visit
		if i%2 == 0 {
			enter = netns.Do
		}
		wg.Go(func() {
			if err := enter(ns.File, func() error {
				if c, err := netns.CookieHere(); err != nil || c == home {
					t.Errorf("inside: cookie %d, %v", c, err)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if c, err := netns.CookieHere(); err != nil || c != home {
				t.Errorf("outside: cookie %d, want %d, %v", c, home, err)
			}
		})
	}
	wg.Wait()
}
