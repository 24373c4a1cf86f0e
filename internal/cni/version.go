package cni

import (
	"encoding/json"
	"slices"
)

// Versions of the specification that results can be given in, oldest first.
var Versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// since is the first version that has a command.
var since = map[string]string{Check: "0.4.0", GC: "1.1.0", Status: "1.1.0"}

// atLeast compares two of Versions.
func atLeast(version, least string) bool {
	return slices.Index(Versions, version) >= slices.Index(Versions, least)
}

// VersionOf is the version that a configuration asks for, as far as it can be read: an
// error is to be told in it.
func VersionOf(config []byte) string {
	var c struct {
		CNIVersion string `json:"cniVersion"`
	}
	if json.Unmarshal(config, &c) != nil || !slices.Contains(Versions, c.CNIVersion) {
		return Versions[len(Versions)-1]
	}
	return c.CNIVersion
}

func (c *Call) checkVersion(version string) error {
	if version == "" {
		version = "0.1.0" // says the specification
	}
	if !slices.Contains(Versions, version) {
		return failf(CodeVersion, "cniVersion %q is not supported (hint: %v are)", version, Versions)
	}
	if least, ok := since[c.Command]; ok && !atLeast(version, least) {
		return failf(CodeVersion, "%s needs cniVersion %s, the configuration has %s", c.Command, least, version)
	}
	c.Version = version
	return nil
}
