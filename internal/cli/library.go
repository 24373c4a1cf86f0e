package cli

import (
	_ "unsafe" // go:linkname

	"github.com/docker/cli/cli/command"
	_ "github.com/docker/cli/cli/command/container" // each of these registers its commands
	_ "github.com/docker/cli/cli/command/context"
	_ "github.com/docker/cli/cli/command/image"
	_ "github.com/docker/cli/cli/command/manifest"
	_ "github.com/docker/cli/cli/command/network"
	_ "github.com/docker/cli/cli/command/registry"
	_ "github.com/docker/cli/cli/command/system"
	_ "github.com/docker/cli/cli/command/volume"
	"github.com/spf13/cobra"
)

// registered are the commands of the packages above. The library's own way to
// them is its package "commands", which links all it has: swarm's stacks with
// them, whose schemas alone are half the time that isle takes to begin. The
// registry is internal to the library, hence the link by name.
//
//go:linkname registered github.com/docker/cli/internal/commands.Commands
func registered() []func(command.Cli) *cobra.Command
