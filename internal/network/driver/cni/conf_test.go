package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/network"
)

// files writes files of a directory; a name that ends in / is a directory.
func files(t *testing.T, all map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func typesOf(c chain) (out []string) {
	for _, p := range c.Plugins {
		out = append(out, p.Network.Type)
	}
	return out
}

// TestConfigurations : all forms that users have, and that what is kept of them says the
// same without any file.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{
		"10-single.conf":         `{"cniVersion":"0.3.1","name":"single","type":"a","ipam":{"type":"b"}}`,
		"20-list.conflist":       `{"cniVersion":"1.0.0","name":"list","plugins":[{"type":"a"},{"type":"b","capabilities":{"portMappings":true}}]}`,
		"30-json.json":           `{"name":"plain","type":"a"}`,
		"40-folder.conflist":     `{"cniVersion":"1.1.0","name":"folder","plugins":[{"type":"a"}]}`,
		"folder/10.conf":         `{"type":"b"}`,
		"folder/20.conf":         `{"type":"c"}`,
		"folder/30.conflist":     `not read`,
		"50-inline.conflist":     `{"cniVersion":"1.1.0","name":"inline","loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}`,
		"inline/10.conf":         `{"type":"b"}`,
		"60-only.conflist":       `{"cniVersion":"1.1.0","name":"only"}`,
		"only/1.conf":            `{"type":"c"}`,
		"70-versions.conflist":   `{"cniVersion":"0.4.0","cniVersions":["0.3.1","1.0.0","1.1.0","9.0.0"],"name":"versions","plugins":[{"type":"a"}]}`,
		"80-broken.conflist":     `{"name":`,
		"90-disabled.conflist":   `{"cniVersion":"1.1.0","name":"disabled","disableCheck":"true","disableGC":true,"plugins":[{"type":"a"}]}`,
		"95-single-caps.conf":    `{"cniVersion":"1.0.0","name":"caps","type":"a","capabilities":{"ips":true}}`,
		"99-same-name.conflist":  `{"cniVersion":"1.0.0","name":"list","plugins":[{"type":"c"}]}`,
		"ignored.txt":            `{"cniVersion":"1.0.0","name":"txt","plugins":[{"type":"c"}]}`,
		"subdir.conflist/x.conf": `{"name":"nobody","type":"a"}`,
	})
	d := New(Config{ConfDirs: []string{filepath.Join(dir, "missing"), dir}})
	for name, want := range map[string]string{
		"single": "0.3.1 [a]", "list": "1.0.0 [a b]", "plain": "0.1.0 [a]", "folder": "1.1.0 [a b c]", "inline": "1.1.0 [a]",
		"only": "1.1.0 [c]", "versions": "1.1.0 [a]", "disabled": "1.1.0 [a]", "caps": "1.0.0 [a]",
	} {
		c, err := d.read(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := kept(c.Bytes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, c := range []chain{c, again} {
			if got := c.CNIVersion + " " + fmt.Sprint(typesOf(c)); got != want || c.Name != name || c.DisableGC != (name == "disabled") || c.DisableCheck != (name == "disabled") ||
				c.takes("ips") != (name == "caps") || c.takes("portMappings") != (name == "list") {
				t.Errorf("%s is %s: %s", name, got, c.Bytes)
			}
		}
	}
	if _, err := d.read("nobody"); err == nil || !strings.Contains(err.Error(), "no configuration of that name is in "+dir+"/missing, "+dir) || !strings.Contains(err.Error(), "80-broken.conflist") {
		t.Error(err)
	}
}

// TestWrongConfigurations : what a configuration cannot be, by file.
func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	list := func(plugins string) string { return `{"cniVersion":"1.0.0","name":"x","plugins":[` + plugins + `]}` }
	for text, want := range map[string]string{
		"":                       "it is no JSON object",
		"[]":                     "it is no JSON object",
		`{"plugins":[]}`:         "no name",
		`{"name":"x"}`:           "it has no plugins",
		list(""):                 "no plugins in list",
		list(`{"type":""}`):      "missing 'type'",
		list(`{"type":"../sh"}`): `type "../sh", ipam "": a plugin's name has letters`,
		list(`{"type":"a","ipam":{"type":"/bin/sh"}}`): `ipam "/bin/sh"`,
		list(`7`): "plugin config 0",
		`{"name":"../../etc","cniVersion":"1.0.0","plugins":[{"type":"a"}]}`: `its name "../../etc"`,
		`{"name":"a b","type":"a"}`:                                        `its name "a b"`,
		`{"name":"x","cniVersion":"2.0.0","plugins":[{"type":"a"}]}`:       `its cniVersion "2.0.0" is none of 0.1.0, `,
		`{"name":"x","cniVersion":7,"plugins":[{"type":"a"}]}`:             "invalid cniVersion type",
		list(strings.TrimSuffix(strings.Repeat(`{"type":"a"},`, 33), ",")): "it has 33 plugins; 32 are the most",
		list(`{"type":"a","pad":"` + strings.Repeat("x", 1<<20) + `"}`):    "a configuration has at most 1048576 bytes",
		strings.Repeat("[", 20000):                                         "it is no JSON object",
	} {
		path := filepath.Join(files(t, map[string]string{"x.conflist": text}), "x.conflist")
		if _, err := readFile(path); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}

// TestCVE_2021_20206 : the name of a plugin leads to a file of the configured directories,
// also that of one which plugins start, and also in what a network has kept.
func TestCVE_2021_20206(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"evil": "", "bin/a": ""})
	for _, name := range []string{"../evil", "./../evil", dir + "/evil", "..", "a/../../evil", "bin\\evil", "a\u0000"} {
		for _, plugin := range []string{`{"type":"` + name + `"}`, `{"type":"a","ipam":{"type":"` + name + `"}}`} {
			b := []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[` + plugin + `]}`)
			if _, err := whole(b, ""); err == nil {
				t.Errorf("%s is a plugin", name)
			}
			if _, err := kept(b); err == nil {
				t.Errorf("%s is a plugin that was kept", name)
			}
		}
		if path, err := find(name, []string{filepath.Join(dir, "bin")}); err == nil {
			t.Errorf("%s is %s", name, path)
		}
	}
}

// TestWrongFiles : what cannot be read, or by whom it can be written.
func TestWrongFiles(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"open.conf": `{"name":"x","type":"a"}`, "bin/open": "", "bin/dir/x": "", "ok.conf": `{"name":"x","type":"a"}`})
	for name, mode := range map[string]os.FileMode{"open.conf": 0o666, "bin/open": 0o777} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"open.conf": "everybody can write it", "pipe": "no regular file", "bin": "no regular file", "nosuch": "no such file"} {
		if _, err := readFile(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	for name, want := range map[string]string{"open": "everybody can write it", "dir": "no regular file", "nosuch": "is not in", "../ok.conf": "a plugin's name has"} {
		if _, err := find(name, []string{filepath.Join(dir, "bin")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := New(Config{}).read("./ok.conf"); err == nil || !strings.Contains(err.Error(), "whole path") {
		t.Error(err)
	}
}

// TestOptions : what a network's options cannot be.
func TestOptions(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"ok.conf": `{"name":"x","cniVersion":"1.0.0","type":"a","ipam":{"type":"b"}}`, "bin/a": "", "one/a": "", "one/b": ""})
	d := New(Config{PluginDirs: []string{filepath.Join(dir, "bin")}})
	for opt, want := range map[string]string{
		"":                                  "a cni network needs a configuration (hint: -o isle.cni.conf=FILE",
		"isle.cni.conf=nosuch":              "no configuration of that name",
		"isle.cni.conf=" + dir + "/ok.conf": "plugin b is not in " + dir + "/bin (hint: install it",
		"isle.cni.conv=x":                   "there is no such option",
		"isle.cni.gc=maybe":                 "must be true or false",
		"isle.cni.timeout=5":                "must be a time from 1s to 1h",
		"isle.cni.timeout=10ms":             "must be a time from 1s to 1h",
		"isle.cni.timeout=2h":               "must be a time from 1s to 1h",
		"isle.cni.subnet=10.0.0.0":          "must be subnets",
		"isle.cni.egress_rate=-1":           "must be a number of bits",
		"isle.cni.ingress_rate=fast":        "must be a number of bits",
		"isle.cni.ingress_burst=9000P":      "must be a number of bits",
		network.OptIfacePrefix + "=a b":     "invalid interface name",
	} {
		n := network.Network{Options: map[string]string{}}
		if k, v, ok := strings.Cut(opt, "="); ok {
			n.Options[k] = v
		}
		if err := d.Validate(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", opt, err, want)
		}
	}
	n := network.Network{Options: map[string]string{"isle.cni.conf": dir + "/ok.conf", "com.example.x": "kept"}}
	if err := New(Config{PluginDirs: []string{dir + "/none", dir + "/one"}}).Validate(n); err != nil {
		t.Error(err)
	}
}

// TestBurst : every rate has a burst that plugins can work with.
func TestBurst(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]uint64{{0, 0, 0}, {0, 5, 5}, {1000, 5, 5}, {1000, 0, 2 << 20}, {1e9, 0, 1e8}, {1 << 40, 0, 1 << 32}} {
		if got := burst(c[0], c[1]); got != c[2] {
			t.Errorf("rate %d, given %d: %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// FuzzConfiguration : whatever a file has, what is kept of it is a configuration, and
// is the same when it is read again.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"a","capabilities":{"ips":true}}]}`))
	f.Add([]byte(`{"name":"x","type":"a","plugins":null,"cniVersions":["0.4.0"]}`))
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"x","disableGC":"TRUE","plugins":[{"type":"a","ipam":{"type":"b"}},{"type":"c"}],"plugins":[{"type":"d"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := whole(b, "")
		if err != nil {
			return
		}
		again, err := kept(c.Bytes)
		if err != nil || again.Name != c.Name || again.CNIVersion != c.CNIVersion || !slices.Equal(typesOf(again), typesOf(c)) || again.DisableGC != c.DisableGC || again.DisableCheck != c.DisableCheck {
			t.Errorf("%s: %v", c.Bytes, err)
		}
		if strings.ContainsAny(c.Name, "/ ") {
			t.Errorf("name %q", c.Name)
		}
	})
}

// TestClean : what others say is one line, without what a terminal would act on.
func TestClean(t *testing.T) {
	t.Parallel()
	if got := clean(" a\nb\x1b[31m\xff" + strings.Repeat("x", 5000)); !strings.HasPrefix(got, "a b [31m?x") || len(got) > maxText {
		t.Errorf("%q", got)
	}
}
