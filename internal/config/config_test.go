package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/config"
)

func load(t *testing.T, text string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "isled.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	return config.Located(c.Check(), file)
}

// TestMistakes: what isled cannot work with is refused when the file is read, with
// its line.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"data-dir = 'x'":                             `isled.toml:1: data-dir "x" must be an absolute path`,
		"# c\nlog-level = 'loud'":                    `isled.toml:2: log-level "loud" is none of`,
		"[network]\nnft-table = 'a b'":               `isled.toml:2: network.nft-table "a b" is not`,
		"[network]\nnft-table = '../x'":              `isled.toml:2: network.nft-table "../x" is not`,
		"[network]\n\nlink-prefix='Isle'":            `isled.toml:3: network.link-prefix "Isle" is not`,
		"[network]\nbridge = 'a/b'":                  `isled.toml:2: network.bridge "a/b" cannot`,
		"[network]\nlink-group = 0":                  `isled.toml:2: network.link-group 0 must`,
		"[network]\nguard-mark = 3":                  `isled.toml:2: network.guard-mark 3 must be one bit`,
		"[network]\n  resync-seconds = -5":           `isled.toml:2: network.resync-seconds -5 must not`,
		"network.subnet = 'banana'":                  `isled.toml:1: network.subnet "banana" is not an IPv4 prefix`,
		"[network]\nsubnet = '10.5.0.1/16'":          `isled.toml:2: network.subnet "10.5.0.1/16" is not an IPv4 prefix`,
		"[network]\nsubnet = '127.5.0.0/16'":         `isled.toml:2: network.subnet "127.5.0.0/16" is not an IPv4 prefix`,
		"[network]\nsubnet = 'fd00::/64'":            `isled.toml:2: network.subnet "fd00::/64" is not an IPv4 prefix`,
		"[network]\npool-v6 = '10.0.0.0/8'":          `isled.toml:2: network.pool-v6 "10.0.0.0/8" is not an IPv6 prefix`,
		"[network]\npool-v6 = 'fd00::/65'":           `isled.toml:2: network.pool-v6 "fd00::/65" is not`,
		"[network]\nhost-binding = 'x'":              `isled.toml:2: network.host-binding "x" is not an IP address`,
		"[network]\ndns = ['1.1.1.1', 'x']":          `isled.toml:2: network.dns "x" is neither`,
		"[network]\ndns-search = ['a b']":            `isled.toml:2: network.dns-search "a b" is not one word`,
		"[network]\ndns-options = ['']":              `isled.toml:2: network.dns-options "" is not one word`,
		"[network]\npools = []":                      `isled.toml:2: network.pools is empty`,
		"[[network.pools]]\nbase='10.0.0.0/8'":       `isled.toml:1: network.pools has 10.0.0.0/8, which cannot`,
		"[network]\ncni-plugin-dirs = ['bin']":       `isled.toml:2: network.cni-plugin-dirs "bin" must be an absolute path`,
		"[network]\ncni-conf-dirs = ['/a:/b']":       `isled.toml:2: network.cni-conf-dirs "/a:/b" must be an absolute path without ':'`,
		"[network]\ncni-timeout-seconds = 0":         `isled.toml:2: network.cni-timeout-seconds 0 must be from 1`,
		"[cluster]\nadvertise = 'eth0'":              `isled.toml:2: cluster.advertise "eth0" is not an IP address`,
		"[cluster]\nport = 0":                        `isled.toml:2: cluster.port must not be 0`,
		"[cluster]\nport = 2379":                     `isled.toml:2: cluster.port 2379, client-port 2379 and`,
		"[cluster]\nwireguard-port = 65535":          `isled.toml:2: cluster.wireguard-port 65535 is not in`,
		"[cluster]\nwireguard-key-days = -1":         `isled.toml:2: cluster.wireguard-key-days -1 is not in`,
		"[cluster]\nlease-seconds = 1":               `isled.toml:2: cluster.lease-seconds 1 is not in`,
		"[cluster]\netcd = ['10.0.0.1:2379']":        `isled.toml:2: cluster.etcd "10.0.0.1:2379" is not a URL`,
		"[cluster]\netcd-prefix = 'isle'":            `isled.toml:2: cluster.etcd-prefix "isle" does not begin`,
		"[cluster]\netcd-cert = '/x'":                `isled.toml:2: cluster.etcd-cert and etcd-key are given together`,
		"[cluster]\netcd-user = 'x'":                 `isled.toml:2: cluster.etcd-user and etcd-password-file are given together`,
		"group = 'x'\nhosts = 5":                     `isled.toml:2: toml:`,
		"[network]\nguard-mark = -1":                 `isled.toml:2: toml:`,
		"[network]\nnosuch = 1":                      "unknown keys",
		"[network]\npools = [{base='x/8', size=16}]": `isled.toml:2: toml:`,
	} {
		if err := load(t, text); err == nil || !strings.Contains(err.Error(), want) || strings.HasSuffix(err.Error(), errdefs.ErrInvalidArgument.Error()) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestNoMistakes(t *testing.T) {
	for _, text := range []string{
		"", "[network]\nguard-mark = 0\nresync-seconds = 0", "[network]\nguard-mark = 0x80000000",
		"[network]\nsubnet = '10.5.0.0/16'\npool-v6 = 'fd00:5::/48'\nhost-binding = '::1'",
		"[network]\ndns = ['1.1.1.1', '[::1]', 'fe80::1%eth0', '1.1.1.1:5353', '[::1]:53']\ndns-search = ['.']\ndns-options = ['ndots:2']",
		"[[network.pools]]\nbase='10.0.0.0/8'\nsize=24",
		"[cluster]\netcd = ['https://10.0.0.1:2379']\netcd-user = 'x'\netcd-password-file = '/x'\nadvertise = '10.0.0.2'",
		"[cluster]\nwireguard-port = 51820\nwireguard-key-days = 0",
	} {
		if err := load(t, text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestMistakeOfCommandLine: what the file does not say has no line.
func TestMistakeOfCommandLine(t *testing.T) {
	c := config.Default()
	c.RunDir = "run"
	err := config.Located(c.Check(), "/nosuch/isled.toml")
	if !errdefs.IsInvalidArgument(err) || err.Error() != `configuration: run-dir "run" must be an absolute path` {
		t.Error(err)
	}
}
