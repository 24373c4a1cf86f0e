// Package cli is the program isle: the commands of the docker/cli library under
// Isle's own root command, on Isle's socket by default, and Isle's own commands
// (one file each: <noun>_<verb>.go).
//
// It is a client: it speaks to isled through the API only and links nothing of
// the engine. In particular it never imports containerd's packages, which would
// double the program (internal/archtest checks).
//
// Traps: the library looks for plugins (it executes every docker-* program that
// it finds) in its help, in its "info" and before an unknown command; none of
// these paths is used here, so the time of `isle --help` does not depend on what
// is installed. The library says "docker" in its texts; texts.go renames them.
package cli
