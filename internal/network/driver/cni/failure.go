package cni

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
)

// failure is a plugin that did not do what it was asked for.
type failure struct {
	plugin, verb string
	said         *types.Error // nil: it has said nothing in the form that it should
	out          output
	why          error
}

// Error implements error.
func (f *failure) Error() string {
	return fmt.Sprintf("plugin %s: %s: %s", f.plugin, f.verb, f.text())
}

func (f *failure) text() string {
	if f.said == nil || !exited(f.why) {
		return clean(f.why.Error()) + f.printed()
	}
	s := clean(f.said.Msg)
	if f.said.Details != "" {
		s += ": " + clean(f.said.Details)
	}
	s += fmt.Sprintf(" (code %d)", f.said.Code)
	if h := hints[f.said.Code]; h != "" {
		s += " (hint: " + h + ")"
	}
	return s
}

// printed is what it said in another form.
func (f *failure) printed() string {
	switch {
	case f.said != nil && f.said.Msg != "":
		return fmt.Sprintf("; it said %q", clean(f.said.Msg))
	case len(f.out.stderr) > 0:
		return fmt.Sprintf("; it said %q", clean(string(f.out.stderr)))
	case len(f.out.stdout) > 0:
		return fmt.Sprintf("; it printed %q", clean(string(f.out.stdout)))
	}
	return ""
}

// Unwrap gives the class.
func (f *failure) Unwrap() []error {
	var class error = errdefs.ErrUnavailable
	if f.said != nil && exited(f.why) {
		switch f.said.Code {
		case types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField, types.ErrInvalidNetworkConfig:
			class = errdefs.ErrInvalidArgument
		case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
		default:
			class = errdefs.ErrInternal
		}
	}
	return []error{class, f.why}
}

// hints are what to do, by the codes of the specification.
var hints = map[uint]string{
	types.ErrIncompatibleCNIVersion:      "another cniVersion in the configuration, or a newer plugin",
	types.ErrUnsupportedField:            "take that field out of the configuration",
	types.ErrUnknownContainer:            "the container is gone; nothing need be done",
	types.ErrInvalidEnvironmentVariables: "the plugin may be older than the configuration's cniVersion",
	types.ErrInvalidNetworkConfig:        "correct the configuration and make the network anew",
	types.ErrTryAgainLater:               "try again later",
	types.ErrPluginNotAvailable:          "look whether the daemon that the plugin needs is running",
	types.ErrLimitedConnectivity:         "look whether the daemon that the plugin needs is running",
}

// maxText is what is repeated of the words of a plugin.
const maxText = 1000

// clean makes one line of what somebody else has said.
func clean(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s[:min(len(s), maxText)], "?"))
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
