package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"isle/api"
)

type publishOptions struct {
	from    []string
	replace bool
	format  string
}

func newPublishCommand(dockerCLI command.Cli) *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish [OPTIONS] CONTAINER [ADDRESS:|if=NAME:][HOST]:CONTAINER[/PROTO]...",
		Short: "Publish ports of a container, also while it runs",
		Long: "Publish ports of a container. A running one gets them at once, without a restart; another at its next start.\n" +
			"HOST and CONTAINER are a port or ranges of equal length; without HOST any free port is taken.",
		Example: `  isle publish web 8443:443                       publish port 443 as 8443 on every address of the host
  isle publish web 127.0.0.1:8080:80 5353:53/udp  more than one
  isle publish web if=tailscale0:80:80            on an interface, whatever its addresses are, also before it is there
  isle publish web 9000:9000 --from 10.0.0.0/8    only for these sources
  isle publish web-v2 8443:443 --replace          move the port here from the container that has it; nothing is refused meanwhile`,
		Args:                  cli.RequiresMinArgs(2),
		Annotations:           map[string]string{"aliases": "isle container publish, isle publish"},
		ValidArgsFunction:     firstOnly(completion.ContainerNames(dockerCLI, true)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFrom(cmd.Flags(), o.from); err != nil {
				return err
			}
			return runPublish(cmd.Context(), dockerCLI, args[0], args[1:], o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.from, "from", nil, "Let only these addresses and prefixes connect")
	f.BoolVar(&o.replace, "replace", false, "Take the ports over from the container that has them, with their allow-list unless --from is given")
	f.StringVar(&o.format, "format", "", `Format the output: "table" or "json"`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", formatJSON}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.NoFileCompletions)
	return cmd
}

func newUnpublishCommand(dockerCLI command.Cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "unpublish [OPTIONS] CONTAINER [ADDRESS:|if=NAME:]PORT[/PROTO]...",
		Short: "Take back published ports of a container, also while it runs",
		Long:  "Take back published ports. PORT is that of the host, or a range. Connections through it end.",
		Example: `  isle unpublish web 8443
  isle unpublish web 127.0.0.1:8080 5353/udp
  isle unpublish web if=tailscale0:80
  isle unpublish web 20000-29999`,
		Args:                  cli.RequiresMinArgs(2),
		Annotations:           map[string]string{"aliases": "isle container unpublish, isle unpublish"},
		ValidArgsFunction:     completePublished(dockerCLI),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUnpublish(cmd.Context(), dockerCLI, args[0], args[1:], format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", `Format the output: "table" or "json"`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", formatJSON}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runPublish(ctx context.Context, dockerCLI command.Cli, ref string, ports []string, o publishOptions) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	req := api.PublishRequest{Ports: withFrom(ports, o.from), Replace: o.replace}
	var resp api.PortsResponse
	if err := call(ctx, dockerCLI, http.MethodPost, "/containers/"+url.PathEscape(ref)+"/publish", req, &resp); err != nil {
		return err
	}
	if err := printPorts(dockerCLI, o.format, resp, resp.Added); err != nil || o.format == formatJSON {
		return err
	}
	printTaken(dockerCLI.Out(), resp)
	return nil
}

func runUnpublish(ctx context.Context, dockerCLI command.Cli, ref string, ports []string, format string) error {
	if err := checkFormat(format); err != nil {
		return err
	}
	var resp api.PortsResponse
	if err := call(ctx, dockerCLI, http.MethodPost, "/containers/"+url.PathEscape(ref)+"/unpublish", api.UnpublishRequest{Ports: ports}, &resp); err != nil {
		return err
	}
	return printPorts(dockerCLI, format, resp, resp.Removed)
}

// checkFrom refuses a list that names nobody: a variable that is empty must not
// open a port to everybody.
func checkFrom(flags *pflag.FlagSet, from []string) error {
	if flags.Changed("from") && strings.Trim(strings.Join(from, ""), " ") == "" {
		return cli.StatusError{StatusCode: 125, Status: "--from names no address; hint: leave it out to let everybody connect"}
	}
	return nil
}

// withFrom writes an allow-list into ports.
func withFrom(ports, from []string) []string {
	if len(from) == 0 {
		return ports
	}
	var out []string
	for _, p := range ports {
		out = append(out, p+";from="+strings.Join(from, ","))
	}
	return out
}

func printPorts(dockerCLI command.Cli, format string, resp api.PortsResponse, ports []api.Port) error {
	for _, w := range resp.Warnings {
		fmt.Fprintln(dockerCLI.Err(), "WARNING:", w)
	}
	if format == formatJSON {
		return printJSON(dockerCLI.Out(), resp)
	}
	for _, p := range ports {
		fmt.Fprint(dockerCLI.Out(), portLine(p))
		if resp.AtNextStart {
			fmt.Fprint(dockerCLI.Out(), " at its next start")
		}
		fmt.Fprintln(dockerCLI.Out())
	}
	return nil
}

// printTaken says whose the ports were that have been taken over.
func printTaken(w io.Writer, resp api.PortsResponse) {
	for _, p := range resp.Removed {
		if len(resp.Added) > 0 && p.Container != resp.Added[0].Container {
			fmt.Fprintf(w, "taken from %s: %s\n", p.Container, portLine(p))
		}
	}
}

// portLine is a line as "isle port" has it, the other way round.
func portLine(p api.Port) string {
	side := net.JoinHostPort(p.Address, hostPorts(p))
	switch {
	case p.Interface != "":
		side = "if=" + p.Interface + ":" + hostPorts(p)
		if strings.Contains(p.Address, ":") {
			side += " (IPv6)"
		}
	case p.Address == "":
		side = hostPorts(p)
	}
	line := fmt.Sprintf("%s -> %s/%s", side, row(p.ContainerPort, p.Count), p.Proto)
	if p.From != "" {
		line += " from " + p.From
	}
	return line
}

func hostPorts(p api.Port) string {
	if p.HostPort == 0 {
		return "(any)"
	}
	return row(p.HostPort, p.Count)
}

func row(first, count uint16) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", first, first+count-1)
	}
	return fmt.Sprint(first)
}

// firstOnly completes the first argument only.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, toComplete)
	}
}

// completePublished completes a container, and then the ports that it publishes.
func completePublished(dockerCLI command.Cli) cobra.CompletionFunc {
	names := completion.ContainerNames(dockerCLI, true)
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return names(cmd, args, toComplete)
		}
		c, err := dockerCLI.Client().ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var ports []string
		for p, bs := range c.Container.HostConfig.PortBindings {
			for _, b := range bs {
				if b.HostPort != "" {
					ports = append(ports, b.HostPort+"/"+string(p.Proto()))
				}
			}
		}
		return ports, cobra.ShellCompDirectiveNoFileComp
	}
}
