package cluster

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isle/test/lab"
)

// clockEnv names a file that says how far the clock of an isled is ahead of the machine's.
const clockEnv = "ISLE_LAB_CLOCK"

// edits make a clock that can be set of Go's runtime: it maps the file when a process
// begins, and looks there whenever it is asked for the time. They declare nothing and add
// no line, so that what other packages know of this one stays as it is.
var edits = []struct{ in, from, to string }{
	{"runtime/runtime1.go", "envs[i] = gostring(argv_index(argv, argc+1+i))\n", `envs[i] = gostring(argv_index(argv, argc+1+i)); ` +
		`if k := "` + clockEnv + `="; len(envs[i]) > len(k) && envs[i][:len(k)] == k { ` +
		`mmap(unsafe.Pointer(uintptr(` + clockAt + `)), 8, _PROT_READ, 1|_MAP_FIXED, open((*byte)(add(unsafe.Pointer(argv_index(argv, argc+1+i)), uintptr(len(k)))), 0, 0), 0) }` + "\n"},
	{"runtime/time.go", "\treturn time_now()\n", "\tsec, nsec, mono = time_now(); sec += *(*int64)(unsafe.Pointer(uintptr(" + clockAt + "))); return\n"},
}

// clockAt is where the file is mapped: seconds, as an int64.
const clockAt = "0x200000000"

// clockwork builds an isled whose clock can be set, etcd and TLS in it included. Only what
// edits are about is compiled anew, and isled linked with it: go build would compile all
// that there is, for a minute.
func clockwork(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay := map[string]string{}
	for _, e := range edits {
		std := filepath.Join(golang(t, "env", "GOROOT"), "src", e.in)
		b, err := os.ReadFile(cmp.Or(overlay[std], std))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), e.from); n != 1 {
			t.Fatalf("%s is not as it was when this test was written: it has %q %d times", std, e.from, n)
		}
		overlay[std] = write(filepath.Base(std), strings.Replace(string(b), e.from, e.to, 1))
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	const compiled = "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}"
	packages := golang(t, "list", "-trimpath", "-export", "-deps", "-f", compiled, "isle/cmd/isled")
	changed := golang(t, "list", "-trimpath", "-export", "-overlay", write("overlay.json", string(b)), "-f", compiled, "runtime")
	main := golang(t, "list", "-trimpath", "-export", "-f", "{{.Export}}", "isle/cmd/isled")
	program := filepath.Join(dir, "isled")
	golang(t, "tool", "link", "-importcfg", write("importcfg", packages+"\n"+changed), "-s", "-w", "-o", program, main)
	for _, beside := range []string{"isle-shim", "isle-toolbox"} {
		if err := os.Symlink(filepath.Join(lab.Bin(), beside), filepath.Join(dir, beside)); err != nil {
			t.Fatal(err)
		}
	}
	return program
}

func golang(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// clock sets the clock of a host: how far it is ahead of the others.
func (h *host) clock(ahead time.Duration) {
	h.t.Helper()
	f, err := os.OpenFile(h.Dir+"/clock", os.O_WRONLY|os.O_CREATE, 0o644)
	h.must(err)
	defer f.Close()
	var seconds [8]byte
	binary.NativeEndian.PutUint64(seconds[:], uint64(ahead/time.Second))
	_, err = f.WriteAt(seconds[:], 0)
	h.must(err)
}

const day = 24 * time.Hour

// TestClocks: hosts whose clocks are wrong. Leases, flows and names do not depend on what
// time it is; certificates do, and who has a clock that is too wrong for them is told.
func TestClocks(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, kind{lease: shortLease, daemon: clockwork(t)})
	s.t.Run("Join", s.child(joinSkewed))
	s.populate()
	s.t.Run("Jump", s.child(jump))
	s.t.Run("Beyond", s.child(beyond))
}

// joinSkewed: up to an hour nobody minds; who is further off is told so, whatever their
// certificates would say.
func joinSkewed(s *site) {
	h1, h2, h3, h4, h5 := s.all[0], s.all[1], s.all[2], s.all[3], s.all[4]
	h1.Isle(s.t, "cluster", "init", "--name", h1.name)
	for h, off := range map[*host]time.Duration{h3: -50 * time.Minute, h4: 50 * time.Minute} {
		h.clock(off)
		h.join(h1)
		s.healthy(h)
		h.clock(0)
	}
	token := h1.Isle(s.t, "cluster", "token", "-q")
	for off, said := range map[time.Duration]string{
		-90 * time.Minute: "clock is 1h30m behind that of", 26 * time.Hour: "clock is 26h0m ahead of that of",
		-1000 * day: "clock is 1000 days behind that of", 200 * day: "clock is 200 days ahead of that of",
	} {
		h2.clock(off)
		h2.refused(said, "cluster", "join", token, h1.addr(), "--name", h2.name)
	}
	h2.clock(0)
	h2.join(h1)
	h5.join(h1)
	s.gathered(s.all...)
	for _, h := range s.all {
		s.healthy(h)
	}
}

// jump: the clocks of a member and of another host jump while flows go on: nothing but
// the status minds.
func jump(s *site) {
	c2, c3, c5 := s.box(2, "c2"), s.box(3, "c3"), s.box(5, "c5")
	out, back := connect(s.t, c2, c3, c3.on("app")), connect(s.t, c5, c2, c2.on("wide"))
	alive := s.alive()
	goesOn(s.t, out, "a jump of the clock", func() {
		goesOn(s.t, back, "a jump of the clock", func() {
			for _, off := range []time.Duration{2 * time.Hour, 25 * time.Hour, -25 * time.Hour} {
				for _, h := range []*host{s.all[2], s.all[4]} {
					h.clock(off)
					h.complains("this host's clock is " + map[bool]string{true: "25h0m", false: "2h0m"}[off.Abs() > day])
					h.run("odd")
					s.model(s.all[0], s.all...)
					h.Isle(s.t, "rm", "-f", "odd")
					h.clock(0)
					s.healthy(h)
				}
			}
		})
	})
	s.model(s.all[0], s.all...)
	if gone := alive(); gone != "" {
		s.t.Errorf("hosts were taken for dead: %s", gone)
	}
}

// beyond: the clock of a member is beyond the end of its certificate, or before its
// begin. With its next connections it is as if it were cut off, and says why; when the
// clock is right it comes back by itself.
func beyond(s *site) {
	h1, h3 := s.all[0], s.all[2]
	rest := []*host{s.all[0], s.all[1], s.all[3], s.all[4]}
	c1, c3, c4 := s.box(1, "c1"), s.box(3, "c3"), s.box(4, "c4")
	through := connect(s.t, c1, c4, c4.on("app"))
	goesOn(s.t, through, "a clock beyond the certificates", func() {
		for _, off := range []time.Duration{100 * day, -100 * day} {
			h3.clock(off)
			h3.Kill()
			s.must(h3.Start())
			h3.complains("this host's clock is 100 days")
			h1.complains("the clock of " + h3.name + " is 100 days")
			s.gathered(rest...)
			s.model(h1, rest...)
			h3.clock(0)
			s.gathered(s.all...)
			for _, h := range s.all {
				s.healthy(h)
			}
			s.model(h1, s.all...)
			s.must(connect(s.t, c1, c3, c3.on("app")).pass())
		}
	})
}

// complains waits until the status says what is wrong.
func (h *host) complains(what string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("its status says %q", what), func() bool { return strings.Contains(h.status().Problem, what) })
}
