// Package version says which Isle this is. The variables are set by the linker.
package version

var (
	// Version is the release, such as 0.1.0.
	Version = "0.1.0-dev"
	// Commit is the git commit it was built from.
	Commit = "unknown"
	// Date is when it was built, RFC 3339.
	Date = "unknown"
)
