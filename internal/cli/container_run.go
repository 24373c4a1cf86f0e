package cli

import (
	"strings"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"
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
		var from []string
		cmd.Flags().StringSliceVar(&from, "from", nil, "Let only these addresses and prefixes connect to the published ports")
		if f := cmd.Flags().Lookup("publish"); f != nil {
			f.Usage = "Publish a container's port(s) to the host, or to one of its interfaces with if=NAME:HOST:CONTAINER"
		}
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := annotatePublish(cmd, from); err != nil {
				return err
			}
			return run(cmd, args)
		}
	}
}

// annotatePublish moves ports from --publish to --annotation.
func annotatePublish(cmd *cobra.Command, from []string) error {
	list, ok := cmd.Flags().Lookup("publish").Value.(*opts.ListOpts)
	if !ok {
		return nil
	}
	var specs []string
	for _, p := range list.GetSlice() {
		if len(from) > 0 || strings.HasPrefix(p, "if=") {
			specs = append(specs, p)
		}
	}
	if len(specs) == 0 {
		return nil
	}
	for _, p := range specs {
		list.Delete(p)
	}
	return cmd.Flags().Set("annotation", annotationPublish+"="+strings.Join(withFrom(specs, from), " "))
}
