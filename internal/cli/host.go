package cli

import (
	"github.com/docker/cli/cli/command"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/moby/moby/client"
)

// DefaultHost is where isled listens when its configuration says nothing else.
const DefaultHost = "unix:///run/isle/isle.sock"

// envHost goes before DOCKER_HOST, so that both CLIs can be set up at once.
const envHost = "ISLE_HOST"

// defaultHost puts Isle's own choices into the library's: first --host and
// --context, then ISLE_HOST, DOCKER_HOST, DOCKER_CONTEXT, the current context,
// and at last DefaultHost where the library would take Docker's socket.
func defaultHost(opts *cliflags.ClientOptions, getenv func(string) string) command.CLIOption {
	if host := getenv(envHost); host != "" && len(opts.Hosts) == 0 && opts.Context == "" {
		opts.Hosts = []string{host}
	}
	return command.WithContextResolver(func(c *command.DockerCli) (string, error) {
		if c.CurrentContext() == command.DefaultContextName && len(opts.Hosts) == 0 && getenv(client.EnvOverrideHost) == "" {
			opts.Hosts = []string{DefaultHost}
		}
		return "", nil
	})
}
