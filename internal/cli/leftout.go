package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

const noSwarm = "Isle has no swarm mode"

// leftOut are commands of the library that Isle does not have, and why. They
// stay known, but hidden, so that who types one is told.
var leftOut = map[string]string{
	"swarm":      noSwarm,
	"node":       noSwarm,
	"service":    noSwarm,
	"stack":      noSwarm,
	"secret":     noSwarm,
	"config":     noSwarm + " (settings of isled: 'isled config')",
	"plugin":     "Isle has no managed plugins",
	"search":     "isle does not search registries; use the registry's own page, such as https://hub.docker.com/search",
	"checkpoint": "Isle cannot checkpoint containers",
	"build":      notYetBuild,
	"builder":    notYetBuild,
	"buildx":     notYetBuild,
	"bake":       notYetBuild,
}

const notYetBuild = "building images comes in a later release\nhint: build elsewhere and bring the image over: 'isle load -i image.tar', or 'isle pull' from a registry"

// leaveOut takes the commands of leftOut out of the tree, and "build" out of "image".
func leaveOut(root *cobra.Command) {
	for name, why := range leftOut {
		replace(root, refusal(name, why))
	}
	if image, _, err := root.Find([]string{"image"}); err == nil && image != root {
		replace(image, refusal("build", notYetBuild))
	}
}

// refusal is a hidden command that says why there is no such command.
func refusal(name, why string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "Not in Isle",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s: %s", cmd.CommandPath(), why)
		},
	}
}
