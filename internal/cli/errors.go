package cli

import (
	"regexp"
	"strings"

	"isle/internal/sentence"
)

// The library's two texts for a daemon that is not there or does not let us in.
// The address may be followed by more.
var (
	notThere  = regexp.MustCompile(`(?:failed to connect to the docker API at|Cannot connect to the Docker daemon at) ([^ ;]+?)[:;.]? .*`)
	notLetIn  = regexp.MustCompile(`permission denied while trying to connect to the docker API at ([^ ;\n]+)`)
	nameInRun = strings.NewReplacer("docker: ", "isle: ", "Run 'docker ", "Run 'isle ", "See 'docker ", "See 'isle ", "the docker daemon", "isled", "the Docker daemon", "isled")
)

// explain is err's text for a person, with the next step where there is one.
// Texts that came from the daemon stay as they are.
func explain(err error) string {
	text := nameInRun.Replace(err.Error())
	if m := connection(notThere, err.Error()); m != "" {
		return "cannot connect to isled at " + m + ": is it running?\n" + startHint(m)
	}
	if m := connection(notLetIn, err.Error()); m != "" {
		return "cannot connect to isled at " + m + ": permission denied\n" +
			"hint: use sudo, or join the group: sudo usermod -aG isle $USER (then log in again)"
	}
	return sentence.Of(text)
}

// connection is the daemon's address in text, if pattern says that it has one.
func connection(pattern *regexp.Regexp, text string) string {
	if m := pattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

func startHint(host string) string {
	if host != DefaultHost {
		return "hint: the address comes from --host, --context, ISLE_HOST, DOCKER_HOST or the current context ('isle context ls')"
	}
	return "hint: start it with 'sudo ./scripts/up'; where it is a service, 'systemctl status isled' says why it stopped;\n" +
		"      the socket is open to root and the group isle"
}
