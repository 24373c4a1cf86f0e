// Command isle-cni is a CNI plugin: with it containerd, CRI-O, nerdctl and Kubernetes put
// their containers on Isle's networks. It starts for every container, so it does next to
// nothing: it hands what it was called with to isled, and prints what isled answers.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"isle/internal/version"
)

// Codes of errors of the specification.
const (
	codeEnvironment = 4
	codeIO          = 5
	codeDecode      = 6
	codeAgain       = 11
	codeUnavailable = 50
)

// versions of the protocol: those of internal/cni.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", newest}

const (
	newest        = "1.1.0"
	defaultSocket = "/run/isle/isle.sock"
	maxConfig     = 4 << 20 // isled takes no more
)

// config is what of the configuration concerns the plugin itself.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
}

// supported is the answer to VERSION.
type supported struct {
	CNIVersion        string   `json:"cniVersion"`
	SupportedVersions []string `json:"supportedVersions"`
}

// failure is an error as the specification wants it on standard output.
type failure struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

func main() { os.Exit(run(os.Stdin, os.Stdout, os.Stderr, os.Getenv)) }

func run(stdin io.Reader, stdout, stderr io.Writer, env func(string) string) int {
	command := env("CNI_COMMAND")
	if command == "" {
		fmt.Fprintf(stderr, "isle-cni %s: a CNI plugin, to be run by a container runtime; protocol versions %v\n", version.Version, versions)
		return fail(stdout, failure{newest, codeEnvironment, "CNI_COMMAND is not set", ""})
	}
	raw, err := io.ReadAll(io.LimitReader(stdin, maxConfig+1))
	if err != nil {
		return fail(stdout, failure{newest, codeIO, "read the configuration from standard input: " + err.Error(), ""})
	}
	conf := config{CNIVersion: newest, Socket: defaultSocket}
	if err = json.Unmarshal(raw, &conf); command == "VERSION" {
		_ = json.NewEncoder(stdout).Encode(supported{conf.CNIVersion, versions})
		return 0
	}
	switch {
	case len(raw) > maxConfig:
		return fail(stdout, failure{newest, codeDecode, fmt.Sprintf("configuration: it is longer than %d bytes", maxConfig), ""})
	case err != nil:
		return fail(stdout, failure{newest, codeDecode, "configuration: " + err.Error(), ""})
	}
	return carry(stdout, conf, request{command, raw, env})
}

// carry has isled carry the request out.
func carry(stdout io.Writer, conf config, r request) int {
	path := strings.TrimPrefix(conf.Socket, "unix://")
	status, body, err := r.post(path)
	switch {
	case err != nil:
		return fail(stdout, unanswered(conf, r.command, path, err))
	case status >= 300 && !strings.HasPrefix(string(body), `{"cniVersion"`):
		return fail(stdout, failure{conf.CNIVersion, codeAgain, fmt.Sprintf("isled does not know CNI: status %d: %s", status, body), "isle-cni and isled are of different versions"})
	}
	if _, err := stdout.Write(body); err != nil || status >= 300 {
		return 1
	}
	return 0
}

// unanswered is for an isled that cannot be reached: the runtime is to try again.
func unanswered(conf config, command, path string, err error) failure {
	f := failure{conf.CNIVersion, codeAgain, "isled does not answer on " + path + ": " + err.Error(), ""}
	if command == "STATUS" {
		f.Code = codeUnavailable
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		f.Details = "is isled running? Another socket is named by \"socket\" in the configuration"
	}
	return f
}

func fail(stdout io.Writer, f failure) int {
	_ = json.NewEncoder(stdout).Encode(f) // there is nobody else to tell
	return 1
}
