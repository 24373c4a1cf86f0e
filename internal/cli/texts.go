package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var (
	dockerWord  = regexp.MustCompile(`\bdocker `)
	dockerNames = strings.NewReplacer(
		"the Docker version", "the Isle version",
		"Docker objects", "Isle objects",
		"Manage Docker image", "Manage image",
		"Manage Docker", "Manage Isle",
		"docker disk usage", "disk usage",
	)
)

// rename makes the library's texts say isle where they name the program.
func rename(cmd *cobra.Command) {
	cmd.Use, cmd.Short, cmd.Long, cmd.Example = isle(cmd.Use), isle(cmd.Short), isle(cmd.Long), isle(cmd.Example)
	if a, ok := cmd.Annotations["aliases"]; ok {
		cmd.Annotations["aliases"] = isle(a)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = isle(f.Usage) })
	for _, sub := range cmd.Commands() {
		rename(sub)
	}
}

// isle looks first: most texts name nobody, and there are two thousand of them
// before each command.
func isle(text string) string {
	if !strings.Contains(text, "ocker") {
		return text
	}
	return dockerWord.ReplaceAllString(dockerNames.Replace(text), "isle ")
}

// hideForeign hides flags and commands for what Isle's daemon never is:
// experimental, a swarm, Windows. The library asks the daemon before each help
// text; this needs no daemon.
func hideForeign(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		f.Hidden = f.Hidden || foreign(func(k string) (string, bool) { return first(f.Annotations, k) })
	})
	for _, sub := range cmd.Commands() {
		sub.Hidden = sub.Hidden || foreign(func(k string) (string, bool) { v, ok := sub.Annotations[k]; return v, ok })
		hideForeign(sub)
	}
}

func first(m map[string][]string, key string) (string, bool) {
	v, ok := m[key]
	if len(v) == 0 {
		return "", ok
	}
	return v[0], ok
}

func foreign(annotation func(string) (string, bool)) bool {
	_, experimental := annotation("experimental")
	_, swarm := annotation("swarm")
	system, named := annotation("ostype")
	return experimental || swarm || named && system != "linux"
}
