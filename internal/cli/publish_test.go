package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"isle/api"
)

// asked is a daemon that remembers one request of those to path.
func asked(t *testing.T, path, answer string) (host string, body func() string) {
	got := make(chan string, 10)
	host = daemon(t, "isle", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, path) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"page not found"}`)
			return
		}
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
		io.WriteString(w, answer)
	})
	return host, func() string { return <-got }
}

func TestPublish(t *testing.T) {
	t.Parallel()
	const answer = `{"Added":[{"Container":"web","Proto":"tcp","Address":"0.0.0.0","HostPort":8443,"Count":1,"ContainerPort":443},
		{"Container":"web","Proto":"udp","Address":"::","Interface":"eth0","HostPort":20000,"Count":10000,"ContainerPort":20000,"From":"fd00::/8"}],
		"Removed":[],"Warnings":["mind the gap"]}`
	host, body := asked(t, "/isle/v1/containers/web/publish", answer)
	env := []string{"ISLE_HOST=" + host}
	got := isleWith(t, env, "publish", "web", "8443:443", "if=eth0:20000-29999:20000-29999/udp", "--from", "10.0.0.0/8,fd00::/8", "--from", "192.0.2.1", "--replace")
	if got.out != "0.0.0.0:8443 -> 443/tcp\nif=eth0:20000-29999 (IPv6) -> 20000-29999/udp from fd00::/8\n" || got.err != "WARNING: mind the gap\n" || got.status != 0 {
		t.Errorf("%+v", got)
	}
	var req api.PublishRequest
	if err := json.Unmarshal([]byte(body()), &req); err != nil || !req.Replace || strings.Join(req.Ports, " ") !=
		"8443:443;from=10.0.0.0/8,fd00::/8,192.0.2.1 if=eth0:20000-29999:20000-29999/udp;from=10.0.0.0/8,fd00::/8,192.0.2.1" {
		t.Errorf("%+v, %v", req, err)
	}
	got = isleWith(t, env, "container", "publish", "--format", "json", "web", "80")
	var resp api.PortsResponse
	if err := json.Unmarshal([]byte(got.out), &resp); err != nil || len(resp.Added) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"publish web", 1, "requires at least 2 arguments"},
		{"publish --format yaml web 80", 1, "it must be table or json"},
		{"unpublish --format yaml web 80", 1, "it must be table or json"},
		{"publish --from= web 80", 125, "--from names no address"},
		{"publish --from=, web 80", 125, "--from names no address"},
		{"run --from= -p 80 image", 125, "--from names no address"},
		{"create -P --from 10.0.0.0/8 -p 80:80 image", 125, "--from is about the ports of -p"},
		{"create --from 10.0.0.0/8 image", 125, "--from is about the ports of -p"},
		{"publish other 80", 1, "it is not isled"},
		{"unpublish web", 1, "requires at least 2 arguments"},
	} {
		if got := isleWith(t, env, strings.Fields(c.args)...); got.status != c.status || !strings.Contains(got.err, c.want) {
			t.Errorf("isle %s: %+v", c.args, got)
		}
	}
}

// TestPublishSaysMore: from whom a port was taken, and that a container which does
// not run has none yet.
func TestPublishSaysMore(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"Added":[{"Container":"green","Proto":"tcp","Address":"0.0.0.0","HostPort":80,"Count":1,"ContainerPort":81,"From":"10.0.0.0/8"}],
			"Removed":[{"Container":"blue","Proto":"tcp","Address":"0.0.0.0","HostPort":80,"Count":1,"ContainerPort":80,"From":"10.0.0.0/8"},
			{"Container":"green","Proto":"tcp","Address":"0.0.0.0","HostPort":81,"Count":1,"ContainerPort":82}]}`: "0.0.0.0:80 -> 81/tcp from 10.0.0.0/8\ntaken from blue: 0.0.0.0:80 -> 80/tcp from 10.0.0.0/8\n",
		`{"Added":[{"Container":"web","Proto":"tcp","HostPort":80,"Count":1,"ContainerPort":81}],"AtNextStart":true}`: "80 -> 81/tcp at its next start\n",
	} {
		host, _ := asked(t, "/publish", answer)
		if got := isleWith(t, []string{"ISLE_HOST=" + host}, "publish", "--replace", "green", "80:81"); got.out != want {
			t.Errorf("%+v, want %q", got, want)
		}
	}
}

func TestUnpublish(t *testing.T) {
	t.Parallel()
	host, body := asked(t, "/isle/v1/containers/web/unpublish", `{"Removed":[{"Proto":"tcp","HostPort":8443,"Count":1,"ContainerPort":443}]}`)
	got := isleWith(t, []string{"ISLE_HOST=" + host}, "unpublish", "web", "8443")
	if got.out != "8443 -> 443/tcp\n" && got.out != ":8443 -> 443/tcp\n" || body() != `{"Ports":["8443"]}` {
		t.Errorf("%+v", got)
	}
}

// TestRunPublishes: -p if=… and --from of run and create go to isled in an
// annotation; other ports go the way they always went.
func TestRunPublishes(t *testing.T) {
	t.Parallel()
	host, body := asked(t, "/containers/create", `{"Id":"0123"}`)
	for args, want := range map[string]string{
		"create -p 8080:80 image":                                             "8080|",
		"create -p 8080:80 -p if=eth0:81:81 image":                            "8080|if=eth0:81:81",
		"container create -p 8080:80 --from 10.0.0.0/8 --from fd00::/8 image": "|8080:80;from=10.0.0.0/8,fd00::/8",
		"create --annotation isle.publish=90:90 -p if=eth0:81:81 image":       "|90:90 if=eth0:81:81",
		"create --annotation a=b -p if=eth0:81:81 -p if=eth1:81:81 image":     "|if=eth0:81:81 if=eth1:81:81",
	} {
		if got := isleWith(t, []string{"ISLE_HOST=" + host}, strings.Fields(args)...); got.status != 0 {
			t.Errorf("isle %s: %+v", args, got)
			continue
		}
		var sent struct {
			HostConfig struct {
				Annotations  map[string]string
				PortBindings map[string][]struct{ HostPort string }
			}
		}
		if err := json.Unmarshal([]byte(body()), &sent); err != nil {
			t.Fatal(err)
		}
		plain := ""
		for _, bs := range sent.HostConfig.PortBindings {
			plain += bs[0].HostPort
		}
		if is := plain + "|" + sent.HostConfig.Annotations[annotationPublish]; is != want {
			t.Errorf("isle %s: %s, want %s", args, is, want)
		}
	}
}

func TestNetworkReports(t *testing.T) {
	t.Parallel()
	host := daemon(t, "isle", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/isle/v1/networks/app/dns"):
			io.WriteString(w, `[{"Name":"web","Type":"A","Value":"10.0.0.2","TTL":5,"Container":"web"}]`)
		case strings.HasSuffix(r.URL.Path, "/isle/v1/network/exposure"):
			io.WriteString(w, `{"Entries":[{"Proto":"tcp","Address":"0.0.0.0","Port":8000,"Count":10,"Container":"web","Target":"10.0.0.2:80","Verdict":"reached"}]}`)
		case strings.HasSuffix(r.URL.Path, "/isle/v1/network/doctor"):
			io.WriteString(w, `{"Findings":[{"Severity":"error","Subject":"isle0","Problem":"nothing is forwarded","Cause":"a rule of ufw","Hint":"ufw route allow"}]}`)
		}
	})
	env := []string{"ISLE_HOST=" + host}
	for args, want := range map[string]string{
		"network dns app":               "NAME   TYPE   VALUE      TTL   CONTAINER\nweb    A      10.0.0.2   5     web\n",
		"network dns app --format json": `{"Name":"web","Type":"A","Value":"10.0.0.2","TTL":5,"Container":"web"}` + "\n",
		"network exposure":              "ADDRESS                 CONTAINER   LEADS TO      FROM   VERDICT   REASON\n0.0.0.0:8000-8009/tcp   web         10.0.0.2:80   -      reached   -\n",
		"network doctor":                "error: isle0: nothing is forwarded\n  because: a rule of ufw\n  hint: ufw route allow\n",
		"network doctor --format json":  `{"Severity":"error","Subject":"isle0","Problem":"nothing is forwarded","Cause":"a rule of ufw","Hint":"ufw route allow"}` + "\n",
	} {
		got := isleWith(t, env, strings.Fields(args)...)
		if got.out != want || got.status != map[bool]int{true: 1}[strings.Contains(args, "doctor")] {
			t.Errorf("isle %s: %+v", args, got)
		}
	}
}

// TestOwnCommandsExplainThemselves: with examples, and completion.
func TestOwnCommandsExplainThemselves(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"publish", "unpublish", "container publish", "container unpublish", "network dns", "network exposure", "network doctor"} {
		got := isleWith(t, nil, append(strings.Fields(args), "--help")...)
		if got.status != 0 || !strings.Contains(got.out, "Examples:") || strings.Contains(got.out, "docker") {
			t.Errorf("isle %s --help: %+v", args, got)
		}
		got = isleWith(t, nil, append(append([]string{"__complete"}, strings.Fields(args)...), "--format", "")...)
		if !strings.HasPrefix(got.out, "table\njson\n") {
			t.Errorf("isle %s --format: %+v", args, got)
		}
	}
}
