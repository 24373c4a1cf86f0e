// Command isle-toolbox is a shell, the usual small programs and network tools in
// one static file: the content of the image isle/toolbox.
package main

import (
	"os"

	"isle/internal/toolbox"
)

func main() { os.Exit(toolbox.Main(os.Args)) }
