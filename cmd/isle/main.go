// Command isle is Isle's command line: the Docker command set, and Isle's own
// commands, on isled's socket.
package main

import (
	"context"
	"os"

	"isle/internal/cli"
)

func main() { os.Exit(cli.Main(context.Background(), os.Args[1:])) }
