package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"isle/api"
)

func newClusterListCommand(dockerCLI command.Cli) *cobra.Command {
	return reporting(&cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List the hosts of the cluster",
		Long: "List the hosts of the cluster. TUNNEL is how the tunnels of networks to a host are, tried from this one: up; down: no answer; narrow: large frames\n" +
			"do not arrive (a black hole); corrupt: frames arrive with wrong checksums. What is wrong is said below.",
		Example: `  isle cluster ls
  isle cluster ls --format json`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var hosts []api.ClusterHost
		if err := call(ctx, dockerCLI, http.MethodGet, "/cluster/hosts", nil, &hosts); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), hosts...)
		}
		var rows [][]string
		for _, h := range hosts {
			name := h.Name
			if h.Self {
				name += " *"
			}
			rows = append(rows, []string{h.ID, name, h.Addr, word(h.Alive, "alive", "gone"), word(h.Member, "member", "-"), orDash(h.Tunnel), contact(h)})
		}
		err := printTable(dockerCLI.Out(), []string{"ID", "NAME", "ADDRESS", "STATE", "MEMORY", "TUNNEL", "LAST CONTACT"}, rows)
		for _, h := range hosts {
			if h.Problem != "" {
				fmt.Fprintln(dockerCLI.Out(), "\n"+h.Problem)
			}
		}
		return err
	})
}

// contact is when the host answered last by a tunnel. To this host there is none.
func contact(h api.ClusterHost) string {
	if h.Tunnel == "" {
		return "-"
	}
	return ago(h.LastContact)
}

func newClusterStatusCommand(dockerCLI command.Cli) *cobra.Command {
	return reporting(&cobra.Command{
		Use:   "status [OPTIONS]",
		Short: "Show whether the cluster can be changed, and who is missing",
		Long: "Show the cluster as this host sees it: whether its memory has a quorum, who leads, and how far behind each member and this host are.\n" +
			"The exit code is 1 when something is wrong.",
		Example: `  isle cluster status
  isle cluster status --format json`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var st api.ClusterStatus
		if err := call(ctx, dockerCLI, http.MethodGet, "/cluster/status", nil, &st); err != nil {
			return err
		}
		var err error
		if format == formatJSON {
			err = printJSON(dockerCLI.Out(), st)
		} else {
			err = printStatus(dockerCLI.Out(), st)
		}
		if err == nil && st.Problem != "" {
			err = cli.StatusError{StatusCode: exitFailure}
		}
		return err
	})
}

func printStatus(w io.Writer, st api.ClusterStatus) error {
	fmt.Fprintf(w, "Cluster:      %s\nThis host:    %s (%s)\nHosts:        %d, of which %d alive\nQuorum:       %s\nLeader:       %s\n",
		st.ID, st.Name, st.Host, st.Hosts, st.Alive, word(st.Quorum, "yes", "no"), orDash(st.Leader))
	fmt.Fprintf(w, "Revision:     %d, this host is %d behind\nLast contact: %s\nCertificate:  until %s\n", st.Revision, st.Lag, ago(st.LastContact), st.CertificateEnd.Format(time.DateOnly))
	for _, r := range st.Ignored {
		fmt.Fprintf(w, "Ignored:      %s\n", r)
	}
	if st.Problem != "" {
		fmt.Fprintf(w, "Problem:      %s\n", st.Problem)
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, m := range st.Members {
		rows = append(rows, []string{orDash(m.Name), m.URL, roleOf(m), reached(m, strconv.FormatInt(m.Lag, 10)), reached(m, units.HumanSize(float64(m.Bytes))), orDash(m.Error)})
	}
	return printTable(w, []string{"MEMBER", "URL", "STATE", "BEHIND", "SIZE", "ERROR"}, rows)
}

func roleOf(m api.ClusterMember) string {
	switch {
	case !m.Reachable:
		return "unreachable"
	case m.Leader:
		return "leader"
	case m.Learning:
		return "catching up"
	}
	return "follower"
}

func reached(m api.ClusterMember, s string) string {
	if !m.Reachable {
		return "-"
	}
	return s
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
