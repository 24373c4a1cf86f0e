package cli

import (
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// annotationPublish is where isled looks for ports that Docker's bindings have no
// place for.
const annotationPublish = "isle.publish"

// teachPublish gives the library's "run" and "create" -p if=NAME:… and --from.
// What they add goes to isled in an annotation.
func teachPublish(root *cobra.Command) {
	for _, path := range [][]string{{"run"}, {"create"}, {"container", "run"}, {"container", "create"}} {
		cmd, rest, err := root.Find(path)
		if err != nil || len(rest) > 0 || cmd.RunE == nil {
			continue
		}
		publish := cmd.Flags().Lookup("publish")
		if publish == nil {
			continue
		}
		var from []string
		cmd.Flags().StringSliceVar(&from, "from", nil, "Let only these addresses and prefixes connect to the published ports")
		publish.Usage = "Publish a container's port(s) to the host, or to one of its interfaces with if=NAME:HOST:CONTAINER"
		given := &portValues{Value: publish.Value}
		publish.Value = given
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := given.deal(cmd.Flags(), from); err != nil {
				return err
			}
			return run(cmd, args)
		}
	}
}

// portValues keeps the values of --publish until it is known whose they are.
type portValues struct {
	pflag.Value
	given []string
}

// Set implements pflag.Value.
func (p *portValues) Set(v string) error {
	p.given = append(p.given, v)
	return nil
}

// deal gives the library its ports, and isled what only isled knows.
func (p *portValues) deal(flags *pflag.FlagSet, from []string) error {
	if err := checkFrom(flags, from); err != nil {
		return err
	}
	if all, _ := flags.GetBool("publish-all"); len(from) > 0 && (all || len(p.given) == 0) {
		return cli.StatusError{StatusCode: 125, Status: "--from is about the ports of -p: those of --publish-all would be open to everybody"}
	}
	var specs []string
	for _, v := range p.given {
		if len(from) > 0 || strings.HasPrefix(v, "if=") {
			specs = append(specs, v)
		} else if err := p.Value.Set(v); err != nil {
			return err
		}
	}
	if len(specs) == 0 {
		return nil
	}
	specs = withFrom(specs, from)
	if all, ok := flags.Lookup("annotation").Value.(*opts.MapOpts); ok { // it may be there: one more would replace it
		specs = append([]string{all.GetAll()[annotationPublish]}, specs...)
	}
	return flags.Set("annotation", annotationPublish+"="+strings.TrimSpace(strings.Join(specs, " ")))
}
