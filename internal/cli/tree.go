package cli

import (
	"context"

	"github.com/spf13/cobra"
)

// Tree is the root of all commands, for who describes them. Nothing is
// connected to and nothing can be run with it.
func Tree() (*cobra.Command, error) {
	dockerCLI, err := newDockerCLI(context.Background())
	if err != nil {
		return nil, err
	}
	return newRoot(dockerCLI).Command, nil
}
