// Command isle-shim is the parent of every container of one isled instance.
// isled starts it; nobody else needs to. As "isle-shim init -- COMMAND" it is
// the small init that --init puts into containers.
package main

import (
	"os"

	"isle/internal/runtime/shim"
	"isle/internal/version"
)

func main() {
	os.Exit(shim.Main(os.Args[0], os.Args[1:], version.Version, os.Stderr))
}
