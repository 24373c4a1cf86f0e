package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"isle/api"
)

func newClusterCommand(dockerCLI command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Manage the cluster of hosts",
		Args:  cli.NoArgs,
		RunE:  command.ShowHelp(dockerCLI.Err()),
	}
	cmd.AddCommand(newClusterInitCommand(dockerCLI), newClusterTokenCommand(dockerCLI), newClusterKeyCommand(dockerCLI), newClusterJoinCommand(dockerCLI),
		newClusterLeaveCommand(dockerCLI), newClusterRemoveCommand(dockerCLI), newClusterListCommand(dockerCLI), newClusterStatusCommand(dockerCLI))
	return cmd
}

// place is who a host is in its cluster: options of init and join.
type place struct{ name, advertise string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.name, "name", "", "Name of this host in the cluster (default: its host name)")
	cmd.Flags().StringVar(&p.advertise, "advertise", "", "Address that other hosts reach this one at (default: that of the route to them)")
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("advertise", cobra.NoFileCompletions)
}

func newClusterInitCommand(dockerCLI command.Cli) *cobra.Command {
	var p place
	var members int
	cmd := reporting(&cobra.Command{
		Use:   "init [OPTIONS]",
		Short: "Make a cluster of this host, which others can join",
		Long: "Make a cluster of this host, which others can join. The first hosts keep its memory (etcd, inside of isled): three of them, so that\n" +
			"one may fail, or with --members 5 five, so that two may. With cluster.etcd in isled.toml an etcd of yours keeps it.",
		Example: `  isle cluster init
  isle cluster init --advertise 10.0.0.5
  isle cluster init --members 5 --name alpha`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var host api.ClusterHost
		req := api.ClusterInitRequest{Name: p.name, Advertise: p.advertise, Members: members}
		if err := call(ctx, dockerCLI, http.MethodPost, "/cluster/init", req, &host); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), host)
		}
		fmt.Fprintf(dockerCLI.Out(), "%s\n", host.ID)
		fmt.Fprintf(dockerCLI.Err(), "This host is now %s, the first of a cluster. isle cluster token prints how others join it.\n", host.Name)
		return nil
	})
	p.flags(cmd)
	cmd.Flags().IntVar(&members, "members", 3, "How many hosts keep the cluster's memory: 1, 3 or 5")
	_ = cmd.RegisterFlagCompletionFunc("members", cobra.FixedCompletions([]string{"1", "3", "5"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func newClusterTokenCommand(dockerCLI command.Cli) *cobra.Command {
	var rotate, quiet bool
	cmd := reporting(&cobra.Command{
		Use:   "token [OPTIONS]",
		Short: "Print a token that lets hosts join for an hour",
		Long:  "Print a token that lets hosts join for an hour. Who has it can become a host of the cluster: it is a secret.",
		Example: `  isle cluster token
  isle cluster token --quiet     the token alone, for scripts
  isle cluster token --rotate    tokens from before let nobody in any more`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var t api.ClusterToken
		if err := call(ctx, dockerCLI, http.MethodPost, "/cluster/token", api.ClusterTokenRequest{Rotate: rotate}, &t); err != nil {
			return err
		}
		switch {
		case format == formatJSON:
			return printJSON(dockerCLI.Out(), t)
		case quiet:
			fmt.Fprintln(dockerCLI.Out(), t.Token)
		default:
			fmt.Fprintf(dockerCLI.Out(), "isle cluster join %s %s\n", t.Token, strings.Join(t.Hosts, " "))
		}
		return nil
	})
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Let tokens from before hold no more")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print the token only, not the command to run on the other host")
	return cmd
}

func newClusterKeyCommand(dockerCLI command.Cli) *cobra.Command {
	var rotate bool
	cmd := reporting(&cobra.Command{
		Use:   "key [OPTIONS]",
		Short: "Show this host's key for encrypted networks, or change it for another",
		Long: "Show this host's key for encrypted networks. With --rotate it is changed for another while its containers go on to talk: the other hosts come over\n" +
			"to the new key one by one, and the old one is forgotten when all have. Keys that are older than wireguard-key-days (isled.toml, cluster) are changed without being asked.",
		Example: `  isle cluster key
  isle cluster key --rotate`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var k api.ClusterKey
		if err := call(ctx, dockerCLI, http.MethodPost, "/cluster/key", api.ClusterKeyRequest{Rotate: rotate}, &k); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), k)
		}
		fmt.Fprintf(dockerCLI.Out(), "Key:   %s\nMade:  %s\nPort:  %d (UDP)\nState: %s\n", k.Public, ago(k.Made), k.Port, keyState(k))
		return nil
	})
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Change the key for another one")
	return cmd
}

// keyState says in words how far a change of a key is.
func keyState(k api.ClusterKey) string {
	switch {
	case k.Old == "":
		return "in use"
	case k.Coming == 0:
		return "in use; the key before is forgotten soon"
	default:
		return fmt.Sprintf("new; hosts that still use the key before: %d", k.Coming)
	}
}

func newClusterJoinCommand(dockerCLI command.Cli) *cobra.Command {
	var p place
	cmd := reporting(&cobra.Command{
		Use:   "join [OPTIONS] TOKEN HOST[:PORT]...",
		Short: "Bring this host into a cluster",
		Long: "Bring this host into the cluster of a token. The hosts are tried in order; only those of the token's cluster are told its secret.\n" +
			"The cluster needs TCP ports 2377, 2379 and 2380 between its hosts (isled.toml, cluster), and UDP port 4789 for its networks.\n" +
			"Whether frames of full size get to the others and back is tried; what does not is a warning.",
		Example: `  isle cluster join isle1-abc… 10.0.0.5
  isle cluster join isle1-abc… 10.0.0.5 10.0.0.6:2377 --advertise 10.0.0.9 --name beta`,
		Args:              cli.RequiresMinArgs(2),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, args []string, format string) error {
		var host api.ClusterHost
		req := api.ClusterJoinRequest{Token: args[0], Hosts: args[1:], Name: p.name, Advertise: p.advertise}
		if err := call(ctx, dockerCLI, http.MethodPost, "/cluster/join", req, &host); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), host)
		}
		fmt.Fprintln(dockerCLI.Out(), host.ID)
		for _, w := range host.Warnings {
			fmt.Fprintln(dockerCLI.Err(), "WARNING:", w)
		}
		return nil
	})
	p.flags(cmd)
	return cmd
}

func newClusterLeaveCommand(dockerCLI command.Cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [OPTIONS]",
		Short: "Take this host out of its cluster",
		Long: "Take this host out of its cluster. It is refused while containers are on networks of the cluster, while this host alone keeps the\n" +
			"memory of others, and while the others cannot be told; with --force it is done all the same, and isle cluster rm on another host tells them.",
		Example: `  isle cluster leave
  isle cluster leave --force`,
		Args:                  cli.NoArgs,
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(cmd.Context(), dockerCLI, http.MethodPost, "/cluster/leave", api.ClusterLeaveRequest{Force: force}, &struct{}{})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Leave whatever there is, and also when nobody can be told")
	return cmd
}

func newClusterRemoveCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use:     "rm HOST",
		Aliases: []string{"remove"},
		Short:   "Take another host out of the cluster, and let it in no more",
		Long:    "Take another host out of the cluster, by its name or id: one that is gone for good, or one that shall have no more to do with it.\nIts certificate is refused from then on; to come back it has to join anew.",
		Example: `  isle cluster rm beta`,
		Args:    cli.ExactArgs(1),
		ValidArgsFunction: firstOnly(func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return clusterHostNames(cmd.Context(), dockerCLI), cobra.ShellCompDirectiveNoFileComp
		}),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := call(cmd.Context(), dockerCLI, http.MethodDelete, "/cluster/hosts/"+url.PathEscape(args[0]), nil, &struct{}{}); err != nil {
				return err
			}
			fmt.Fprintln(dockerCLI.Out(), args[0])
			return nil
		},
	}
}

func clusterHostNames(ctx context.Context, dockerCLI command.Cli) (names []string) {
	var hosts []api.ClusterHost
	if err := call(ctx, dockerCLI, http.MethodGet, "/cluster/hosts", nil, &hosts); err != nil {
		return nil
	}
	for _, h := range hosts {
		if !h.Self {
			names = append(names, h.Name)
		}
	}
	return names
}
