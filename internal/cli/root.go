package cli

import (
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/spf13/cobra"

	"isle/internal/version"
)

const examples = `  isle run -d --name web -p 8080:80 isle/toolbox serve :80    start a server and publish it
  isle network create app                                     make a network
  isle run -it --rm --network app isle/toolbox sh             a shell on it
  isle logs -f web                                            follow what a container prints
  isle rm -f web                                              stop and remove it`

type rootCommand struct {
	*cobra.Command
	opts *cliflags.ClientOptions
}

// newRoot is the whole tree of commands.
func newRoot(dockerCLI *command.DockerCli) rootCommand {
	root := &cobra.Command{
		Use:                   "isle [OPTIONS] COMMAND [ARG...]",
		Short:                 "Containers whose network you can see",
		Example:               examples,
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		Version:               fmt.Sprintf("%s, build %s", version.Version, version.Commit),
		RunE:                  func(cmd *cobra.Command, args []string) error { return runRoot(dockerCLI, cmd, args) },
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetIn(dockerCLI.In())
	root.SetOut(dockerCLI.Out())
	root.SetErr(dockerCLI.Err())
	opts, _ := cli.SetupRootCommand(root)
	root.SetVersionTemplate("Isle version {{.Version}}\n")
	root.Annotations["additionalHelp"] = "Isle listens on " + DefaultHost + "; docs/cli.md says how another daemon is chosen."
	root.Flags().BoolP("version", "v", false, "Print version information and quit")
	addCommands(root, dockerCLI)
	rename(root)
	hideForeign(root)
	return rootCommand{root, opts}
}

func runRoot(dockerCLI command.Cli, cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return command.ShowHelp(dockerCLI.Err())(cmd, args)
	}
	return fmt.Errorf("isle: unknown command: isle %s\n\nRun 'isle --help' for more information", args[0])
}

// addCommands adds the library's commands, takes out what Isle does not have,
// and puts Isle's own in the place of the library's.
func addCommands(root *cobra.Command, dockerCLI command.Cli) {
	for _, newCommand := range registered() {
		root.AddCommand(newCommand(dockerCLI))
	}
	leaveOut(root)
	replace(root, newInfoCommand(dockerCLI))
	addOwn(root, dockerCLI)
	teachPublish(root)
	if system, _, err := root.Find([]string{"system"}); err == nil {
		replace(system, newInfoCommand(dockerCLI))
	}
}

// addOwn adds what docker does not have.
func addOwn(root *cobra.Command, dockerCLI command.Cli) {
	root.AddCommand(newPublishCommand(dockerCLI), newUnpublishCommand(dockerCLI), newClusterCommand(dockerCLI))
	if container, _, err := root.Find([]string{"container"}); err == nil {
		container.AddCommand(newPublishCommand(dockerCLI), newUnpublishCommand(dockerCLI))
	}
	if network, _, err := root.Find([]string{"network"}); err == nil {
		network.AddCommand(newNetworkDNSCommand(dockerCLI), newNetworkExposureCommand(dockerCLI), newNetworkDoctorCommand(dockerCLI))
	}
}

// replace puts cmd where parent has a command of that name.
func replace(parent, cmd *cobra.Command) {
	for _, old := range parent.Commands() {
		if old.Name() == cmd.Name() {
			parent.RemoveCommand(old)
		}
	}
	parent.AddCommand(cmd)
}
