package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/formatter"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"isle/internal/version"
)

// probeLabel marks those of the daemon's labels that say what isled found out
// about this kernel: "isle.probe.cgroup-bpf=yes".
const probeLabel = "isle.probe."

// info is what templates of "isle info --format" see: the names are Docker's.
type info struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string    `json:",omitempty"`
	ClientInfo   *clientInfo `json:",omitempty"`
}

type clientInfo struct {
	Version string
	Context string
	Host    string
}

// newInfoCommand takes the place of the library's "info", which executes every
// Docker plugin that it finds and knows nothing of Isle.
func newInfoCommand(dockerCLI command.Cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:               "info [OPTIONS]",
		Short:             "Display system-wide information",
		Args:              cli.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       map[string]string{"category-top": "12", "aliases": "isle system info, isle info"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runInfo(cmd.Context(), dockerCLI, format)
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cliflags.InspectFormatHelp)
	return cmd
}

func runInfo(ctx context.Context, dockerCLI command.Cli, format string) error {
	tmpl, err := infoTemplate(format)
	if err != nil {
		return cli.StatusError{StatusCode: 64, Status: "template parsing error: " + err.Error()}
	}
	got := info{ClientInfo: &clientInfo{version.Version, dockerCLI.CurrentContext(), dockerCLI.DockerEndpoint().Host}}
	res, err := dockerCLI.Client().Info(ctx, client.InfoOptions{})
	switch {
	case err == nil:
		got.Info = &res.Info
	case client.IsErrConnectionFailed(err) && format != "":
		return err
	default:
		got.ServerErrors = []string{explain(err)}
	}
	return errors.Join(printInfo(dockerCLI.Out(), tmpl, got), err)
}

func printInfo(w io.Writer, tmpl *template.Template, i info) error {
	if err := tmpl.Execute(w, i); err != nil {
		return cli.StatusError{StatusCode: 64, Status: "template: " + err.Error()}
	}
	_, err := fmt.Fprintln(w)
	return err
}

func infoTemplate(format string) (*template.Template, error) {
	switch format {
	case "":
		format = strings.TrimSuffix(infoText, "\n")
	case formatter.JSONFormatKey:
		format = formatter.JSONFormat
	}
	return templates.New("info").Funcs(template.FuncMap{
		"size":     func(n int64) string { return units.BytesSize(float64(n)) },
		"probes":   probes,
		"ordinary": ordinaryLabels,
		"runtimes": func(m map[string]system.RuntimeWithStatus) string {
			return strings.Join(slices.Sorted(maps.Keys(m)), " ")
		},
	}).Parse(format)
}

// probes are the labels that isled made of what it found out about the kernel.
func probes(labels []string) [][2]string {
	var found [][2]string
	for _, l := range labels {
		if l, ok := strings.CutPrefix(l, probeLabel); ok {
			k, v, _ := strings.Cut(l, "=")
			found = append(found, [2]string{k, v})
		}
	}
	return found
}

func ordinaryLabels(labels []string) []string {
	return slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return strings.HasPrefix(l, probeLabel) })
}

const infoText = `Client:
 Version:    {{.ClientInfo.Version}}
 Context:    {{.ClientInfo.Context}}
 Host:       {{.ClientInfo.Host}}

Server:{{with .Info}}
 Isle Version: {{.ServerVersion}}
 Runtime: {{.DefaultRuntime}} (of: {{runtimes .Runtimes}})
 Control Groups: version {{.CgroupVersion}}, driver {{.CgroupDriver}}
 Kernel Version: {{.KernelVersion}}
{{- with probes .Labels}}
 Kernel Probes:{{range .}}
  {{index . 0}}: {{index . 1}}{{end}}{{end}}
{{- with .FirewallBackend}}
 Firewall: {{.Driver}}{{range .Info}}
  {{index . 0}}: {{index . 1}}{{end}}{{end}}
 Network Modes: {{join .Plugins.Network " "}}
{{- if .DefaultAddressPools}}
 Address Pools:{{range .DefaultAddressPools}}
  {{.Base}} in pieces of /{{.Size}}{{end}}{{end}}
 Containers: {{.Containers}}
  Running: {{.ContainersRunning}}
  Paused: {{.ContainersPaused}}
  Stopped: {{.ContainersStopped}}
 Images: {{.Images}}
 Storage Driver: {{.Driver}}{{range .DriverStatus}}
  {{index . 0}}: {{index . 1}}{{end}}
 Logging Driver: {{.LoggingDriver}} (of: {{join .Plugins.Log " "}})
{{- if .SecurityOptions}}
 Security Options:{{range .SecurityOptions}}
  {{.}}{{end}}{{end}}
 Operating System: {{.OperatingSystem}}
 Architecture: {{.Architecture}}
 CPUs: {{.NCPU}}
 Total Memory: {{size .MemTotal}}
 Name: {{.Name}}
 ID: {{.ID}}
 Root Dir: {{.DockerRootDir}}
 Debug Mode: {{.Debug}}
{{- with ordinary .Labels}}
 Labels:{{range .}}
  {{.}}{{end}}{{end}}
{{- with .RegistryConfig}}{{if .Mirrors}}
 Registry Mirrors:{{range .Mirrors}}
  {{.}}{{end}}{{end}}{{end}}
 Containers Survive Restarts: {{.LiveRestoreEnabled}}
{{- range .Warnings}}
WARNING: {{.}}{{end}}{{end}}
`
