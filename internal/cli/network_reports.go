package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/spf13/cobra"

	"isle/api"
)

// reporting is a command that prints what one endpoint says.
func reporting(cmd *cobra.Command, run func(ctx context.Context, args []string, format string) error) *cobra.Command {
	var format string
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(format); err != nil {
			return err
		}
		return run(cmd.Context(), args, format)
	}
	cmd.Flags().StringVar(&format, "format", "", `Format the output: "table" or "json"`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", formatJSON}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func newNetworkDNSCommand(dockerCLI command.Cli) *cobra.Command {
	return reporting(&cobra.Command{
		Use:   "dns [OPTIONS] NETWORK",
		Short: "Show the names that a network's resolver knows",
		Example: `  isle network dns app
  isle network dns app --format json`,
		Args:              cli.ExactArgs(1),
		ValidArgsFunction: firstOnly(completion.NetworkNames(dockerCLI)),
	}, func(ctx context.Context, args []string, format string) error {
		var names []api.DNSRecord
		if err := call(ctx, dockerCLI, http.MethodGet, "/networks/"+url.PathEscape(args[0])+"/dns", nil, &names); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), names...)
		}
		var rows [][]string
		for _, n := range names {
			rows = append(rows, []string{n.Name, n.Type, n.Value, strconv.Itoa(int(n.TTL)), n.Container})
		}
		return printTable(dockerCLI.Out(), []string{"NAME", "TYPE", "VALUE", "TTL", "CONTAINER"}, rows)
	})
}

func newNetworkExposureCommand(dockerCLI command.Cli) *cobra.Command {
	return reporting(&cobra.Command{
		Use:   "exposure [OPTIONS]",
		Short: "Show every address and port that can be reached from outside",
		Long:  "Show every address and port of containers that can be reached from outside of this host: evaluated, not as configured.",
		Example: `  isle network exposure
  isle network exposure --format json`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var all api.Exposure
		if err := call(ctx, dockerCLI, http.MethodGet, "/network/exposure", nil, &all); err != nil {
			return err
		}
		if format == formatJSON {
			return printJSON(dockerCLI.Out(), all.Entries...)
		}
		var rows [][]string
		for _, x := range all.Entries {
			rows = append(rows, []string{exposedAt(x), orDash(x.Container), orDash(x.Target), orDash(x.From), x.Verdict, orDash(x.Reason)})
		}
		return printTable(dockerCLI.Out(), []string{"ADDRESS", "CONTAINER", "LEADS TO", "FROM", "VERDICT", "REASON"}, rows)
	})
}

func exposedAt(x api.Exposed) string {
	side := x.Address
	if x.Interface != "" {
		side = strings.TrimPrefix(side+"%"+x.Interface, "%")
	}
	if x.Port == 0 {
		return side + " " + x.Proto
	}
	if strings.Contains(x.Address, ":") {
		side = "[" + side + "]"
	}
	return side + ":" + row(x.Port, x.Count) + "/" + x.Proto
}

func newNetworkDoctorCommand(dockerCLI command.Cli) *cobra.Command {
	return reporting(&cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Find what keeps containers from being reached",
		Long:  "Find what keeps containers from being reached: rules of other firewalls, settings of the kernel, overlapping subnets.\nThe exit code is 1 when there is an error among the findings.",
		Example: `  isle network doctor
  isle network doctor --format json`,
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, _ []string, format string) error {
		var found api.Diagnosis
		if err := call(ctx, dockerCLI, http.MethodGet, "/network/doctor", nil, &found); err != nil {
			return err
		}
		return printFindings(dockerCLI.Out(), found, format)
	})
}

func printFindings(w io.Writer, d api.Diagnosis, format string) error {
	if format == formatJSON {
		if err := printJSON(w, d.Findings...); err != nil {
			return err
		}
	} else if len(d.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong")
	}
	failed := false
	for _, f := range d.Findings {
		failed = failed || f.Severity == "error"
		if format != formatJSON {
			printFinding(w, f)
		}
	}
	if failed {
		return cli.StatusError{StatusCode: exitFailure}
	}
	return nil
}

func printFinding(w io.Writer, f api.Finding) {
	fmt.Fprintf(w, "%s: %s: %s\n", f.Severity, f.Subject, f.Problem)
	if f.Cause != "" {
		fmt.Fprintf(w, "  because: %s\n", f.Cause)
	}
	if f.Hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", f.Hint)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printTable(w io.Writer, head []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}
