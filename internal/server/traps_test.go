package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	isle "isle/internal/container"
	"isle/internal/filters"
	"isle/internal/image"
	"isle/internal/server/servertest"
)

// One test for each trap of the reference on Docker's clients; their numbers
// are the reference's.

const (
	raw   = "application/vnd.docker.raw-stream"
	muxed = "application/vnd.docker.multiplexed-stream"
)

func attachTo(version, id, query string, upgrade bool) string {
	more := ""
	if upgrade {
		more = "Connection: Upgrade\nUpgrade: tcp\n"
	}
	return "POST /v" + version + "/containers/" + id + "/attach?" + query + " HTTP/1.1\nHost: x\n" + more + "\n"
}

func TestTrap01AttachMediaTypes(t *testing.T) {
	for _, c := range []struct {
		version      string
		upgrade, tty bool
		want         string
	}{
		{"1.52", true, false, "HTTP/1.1 101 UPGRADED\nContent-Type: " + muxed + "\nConnection: Upgrade\nUpgrade: tcp\n"},
		{"1.42", true, false, "HTTP/1.1 101 UPGRADED\nContent-Type: " + muxed + "\nConnection: Upgrade\nUpgrade: tcp\n"},
		{"1.41", true, false, "HTTP/1.1 101 UPGRADED\nContent-Type: " + raw + "\nConnection: Upgrade\nUpgrade: tcp\n"},
		{"1.52", true, true, "HTTP/1.1 101 UPGRADED\nContent-Type: " + raw + "\nConnection: Upgrade\nUpgrade: tcp\n"},
		{"1.52", false, false, "HTTP/1.1 200 OK\nContent-Type: " + raw + "\n"},
	} {
		t.Run(fmt.Sprint(c.version, c.upgrade, c.tty), func(t *testing.T) {
			h := serve(t, fake())
			id := h.create("a", "echo hello", fmt.Sprintf(`,"Tty":%v`, c.tty))
			_, r, header := h.hijack(attachTo(c.version, id, "stream=1&stdout=1", c.upgrade))
			if header != c.want {
				t.Errorf("header %q, want %q", header, c.want)
			}
			h.start(id)
			want := "\x01\x00\x00\x00\x00\x00\x00\x06hello\n"
			if c.tty {
				want = "hello\n"
			}
			if got, err := io.ReadAll(r); string(got) != want || err != nil {
				t.Errorf("stream %q (%v), want %q", got, err, want)
			}
		})
	}
}

func TestTrap01AttachHalfClose(t *testing.T) {
	h := serve(t, fake())
	id := h.create("a", "cat", `,"OpenStdin":true`)
	c, r, _ := h.hijack(attachTo("1.52", id, "stream=1&stdin=1&stdout=1", true) + "sent ahead ")
	h.start(id)
	if _, err := io.WriteString(c, "and after"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, r); err != nil || out.String() != "sent ahead and after" || errs.Len() > 0 {
		t.Errorf("stdout %q, stderr %q, %v", out.String(), errs.String(), err)
	}
}

func TestTrap01AttachBothStreamsAndLogs(t *testing.T) {
	h := serve(t, fake())
	id := h.running("a", "both", "")
	h.want(200, "POST", "/containers/"+id+"/wait", "")
	_, r, _ := h.hijack(attachTo("1.52", id, "logs=1&stdout=1&stderr=1", true))
	var out, errs bytes.Buffer
	_, err := stdcopy.StdCopy(&out, &errs, r)
	if err != nil || out.String() != "to stdout\n" || errs.String() != "to stderr\n" {
		t.Errorf("stdout %q, stderr %q, %v", out.String(), errs.String(), err)
	}
}

func TestTrap01AttachErrors(t *testing.T) {
	h := serve(t, fake())
	if m := h.message(404, "POST", "/containers/none/attach?stream=1", "", "Connection", "Upgrade", "Upgrade", "tcp"); m != "No such container: none" {
		t.Error(m)
	}
	h = serve(t, failingAttach{fake()})
	id := h.create("a", "echo", "")
	_, r, _ := h.hijack(attachTo("1.52", id, "stream=1&stdout=1", true))
	if _, err := stdcopy.StdCopy(io.Discard, io.Discard, r); err == nil || !strings.Contains(err.Error(), "the shim is gone") {
		t.Errorf("error after the hijack: %v", err)
	}
}

type failingAttach struct{ *servertest.Backend }

func (failingAttach) ContainerAttach(_ context.Context, _ string, o isle.AttachOptions) error {
	if _, err := o.Streams(false); err != nil {
		return err
	}
	return fmt.Errorf("the shim is gone: %w", errdefs.ErrUnavailable)
}

func TestTrap02WaitFlushesBeforeStart(t *testing.T) {
	for cond, code := range map[string]float64{"next-exit": 3, "removed": 3} {
		h := serve(t, fake())
		id := h.create("w", "exit 3", `,"HostConfig":{"AutoRemove":true}`)
		resp := h.open("POST", "/containers/"+id+"/wait?condition="+cond, "") // returns although nothing has ended
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		h.start(id)
		var m map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || m["StatusCode"] != code || m["Error"] != nil {
			t.Errorf("%s: %v %v", cond, m, err)
		}
		resp.Body.Close()
	}
}

func TestTrap02WaitRemovalFailed(t *testing.T) {
	h := serve(t, failingWait{fake()})
	m := h.object(200, "POST", "/containers/x/wait?condition=removed", "")
	if e, _ := m["Error"].(map[string]any); e["Message"] != "device busy" || m["StatusCode"] != 2.0 {
		t.Error(m)
	}
	if m := h.message(400, "POST", "/containers/x/wait?condition=soon", ""); m != `invalid condition: "soon"` {
		t.Error(m)
	}
	h.want(200, "POST", "/v1.29/containers/x/wait?condition=soon", "")
}

type failingWait struct{ *servertest.Backend }

func (failingWait) ContainerWait(context.Context, string, container.WaitCondition) (<-chan isle.WaitResult, error) {
	ch := make(chan isle.WaitResult, 1)
	ch <- isle.WaitResult{ExitCode: 2, Err: fmt.Errorf("device busy: %w", errdefs.ErrConflict)}
	return ch, nil
}

func TestTrap03StartErrorText(t *testing.T) {
	h := serve(t, fake())
	id := h.create("a", "missing", "")
	m := h.message(400, "POST", "/containers/"+id+"/start", "")
	if !strings.HasSuffix(m, "executable file not found in $PATH") { // no class behind it
		t.Error(m)
	}
}

func TestTrap04Exec(t *testing.T) {
	h := serve(t, fake())
	id := h.running("a", "sleep", "")
	exec := func(body string) string {
		return h.object(201, "POST", "/containers/"+id+"/exec", body)["Id"].(string)
	}
	start := func(x, body string) (string, *bufio.Reader) {
		_, r, header := h.hijack(fmt.Sprintf("POST /v1.52/exec/%s/start HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: tcp\nContent-Type: application/json\nContent-Length: %d\n\n%s", x, len(body), body))
		return header, r
	}
	t.Run("exit code at the end of the stream", func(t *testing.T) {
		x := exec(`{"Cmd":["exit","7"],"AttachStdout":true}`)
		header, r := start(x, `{}`)
		if !strings.Contains(header, "101 UPGRADED\nContent-Type: "+muxed) {
			t.Error(header)
		}
		if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
			t.Errorf("%q %v", b, err)
		}
		if m := h.object(200, "GET", "/exec/"+x+"/json", ""); m["ExitCode"] != 7.0 || m["Running"] != false {
			t.Error(m)
		}
	})
	for _, cmd := range []string{"missing", "early"} {
		t.Run("error in the stream: "+cmd, func(t *testing.T) {
			header, r := start(exec(`{"Cmd":"`+cmd+`","AttachStdout":true}`), `{}`)
			var out bytes.Buffer
			_, err := stdcopy.StdCopy(&out, io.Discard, r)
			if !strings.Contains(header, "101") || err != nil || !strings.HasPrefix(out.String(), "OCI runtime exec failed") || !strings.HasSuffix(out.String(), "\r\n") {
				t.Errorf("%q %q %v", header, out.String(), err)
			}
		})
	}
	t.Run("stdin behind a chunked body", func(t *testing.T) {
		x := exec(`{"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}`)
		c, r, _ := h.hijack("POST /exec/" + x + "/start HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: tcp\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n2\n{}\n0\n\n")
		if _, err := io.WriteString(c, "typed"); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		var out bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, io.Discard, r); err != nil || out.String() != "typed" {
			t.Errorf("%q %v", out.String(), err)
		}
	})
	t.Run("statuses", func(t *testing.T) {
		h.want(404, "POST", "/exec/none/start", `{}`)
		h.want(409, "POST", "/exec/"+exec(`{"Cmd":["cat"]}`)+"/resize?h=1&w=2", "")
		h.want(400, "POST", "/containers/"+id+"/exec", `{"Cmd":[]}`)
		h.want(200, "POST", "/exec/"+exec(`{"Cmd":["echo"]}`)+"/start", `{"Detach":true}`)
		h.want(400, "POST", "/exec/none/start", `{"ConsoleSize":[1,2]}`)
	})
	t.Run("console size since 1.42", func(t *testing.T) {
		b := fake()
		h := serve(t, b)
		h.running("a", "sleep", "")
		for v, want := range map[string]bool{"1.41": false, "1.42": true} {
			h.want(201, "POST", "/v"+v+"/containers/a/exec", `{"Cmd":["cat"],"Tty":true,"ConsoleSize":[24,80]}`)
			if got := b.Last.(container.ExecCreateRequest).ConsoleSize; (got != nil) != want {
				t.Errorf("%s: %v", v, got)
			}
		}
		h.kill("a")
	})
	h.kill(id)
}

func TestTrap05ResizeBeforeStart(t *testing.T) {
	b := fake()
	h := serve(t, b)
	id := h.create("a", "sleep", "")
	h.want(409, "POST", "/containers/"+id+"/resize?h=24&w=80", "")
	h.want(400, "POST", "/containers/"+id+"/resize?h=24", "")
	h.want(400, "POST", "/containers/"+id+"/resize?h=24&w=65536", "")
	h.start(id)
	h.want(200, "POST", "/containers/"+id+"/resize?h=24&w=80", "")
	if b.Last != [2]uint16{24, 80} {
		t.Error(b.Last)
	}
	h.kill(id)
}

func publish(b *servertest.Backend, kind events.Type, action, id string, at ...int64) {
	m := events.Message{Type: kind, Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: map[string]string{"name": "web", "image": "img:1", "k": "v"}}}
	if len(at) > 0 {
		m.TimeNano = at[0]
	}
	b.Bus.Publish(m)
}

func TestTrap06EventsFilters(t *testing.T) {
	for _, c := range []struct{ name, filter, want string }{
		{"none", ``, "start health_status: healthy exec_start: sh die connect pull"},
		{"fuzzy health", `{"event":["health_status"]}`, "health_status: healthy"},
		{"exact health", `{"event":["health_status: healthy"]}`, "health_status: healthy"},
		{"fuzzy exec", `{"event":["exec_start"]}`, "exec_start: sh"},
		{"or within a key", `{"event":["start","die"]}`, "start die"},
		{"and across keys", `{"event":["start","connect"],"type":["network"]}`, "connect"},
		{"container by prefix of its id", `{"container":["abc"]}`, "start health_status: healthy exec_start: sh die"},
		{"container by name", `{"container":["web"],"event":["die"]}`, "die"},
		{"old form", `{"event":{"die":true}}`, "die"},
		{"image of a container", `{"image":["img"],"event":["start"]}`, "start"},
		{"image by name", `{"image":["web"]}`, "pull"},
		{"label", `{"label":["k=v"],"event":["die"]}`, "die"},
		{"other label", `{"label":["k=w"]}`, ""},
		{"scope", `{"scope":["swarm"]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := fake()
			h := serve(t, b)
			for i, a := range []string{"start", "health_status: healthy", "exec_start: sh", "die"} {
				publish(b, events.ContainerEventType, a, "abcdef", int64(i+1))
			}
			publish(b, events.NetworkEventType, "connect", "net", 5)
			publish(b, events.ImageEventType, "pull", "img:1", 6)
			var got []string
			d := json.NewDecoder(strings.NewReader(h.want(200, "GET", "/events?until=1&filters="+url.QueryEscape(c.filter), "")))
			for d.More() {
				var m events.Message
				if err := d.Decode(&m); err != nil {
					t.Fatal(err)
				}
				got = append(got, string(m.Action))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	h := serve(t, fake())
	h.want(400, "GET", `/events?filters={"colour":["x"]}`, "")
}

func TestTrap06EventsLive(t *testing.T) {
	b := fake()
	h := serve(t, b)
	publish(b, events.ContainerEventType, "start", "a", 10e9)
	publish(b, events.ContainerEventType, "die", "a", 20e9)
	resp := h.open("GET", "/v1.51/events?since=15", "") // header at once
	defer resp.Body.Close()
	publish(b, events.ContainerEventType, "destroy", "a")
	d := json.NewDecoder(resp.Body)
	for _, want := range []string{"die", "destroy"} {
		var m map[string]any
		if err := d.Decode(&m); err != nil || m["Action"] != want || m["status"] != want || m["id"] != "a" || m["from"] != "img:1" {
			t.Fatalf("%v %v, want %s", m, err, want)
		}
	}
}

func TestTrap06EventsUntilAndShape(t *testing.T) {
	b := fake()
	h := serve(t, b)
	publish(b, events.ContainerEventType, "start", "a", 10e9)
	publish(b, events.ContainerEventType, "die", "a", 20e9)
	text := h.want(200, "GET", "/v1.52/events?until=15", "") // ends by itself
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil || m["Action"] != "start" || m["status"] != nil || m["timeNano"] != 10e9 {
		t.Errorf("%s %v", text, err)
	}
	h.want(400, "GET", "/events?since=20&until=10", "")
	h.want(400, "GET", "/events?since=soon", "")
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/json-seq": "application/json-seq",
		"application/json;q=0.5, application/jsonl": "application/jsonl", "application/x-ndjson": "application/x-ndjson", "text/html": "application/json",
	} {
		_, header, text := h.do("GET", "/v1.52/events?until=15", "", "Accept", accept)
		if got := header.Get("Content-Type"); got != want || strings.HasPrefix(text, "\x1e") != (want == "application/json-seq") {
			t.Errorf("Accept %q: %q %q", accept, got, text)
		}
		if _, header, _ := h.do("GET", "/v1.51/events?until=15", "", "Accept", accept); header.Get("Content-Type") != "application/json" {
			t.Error(header)
		}
	}
}

func TestTrap07Filters(t *testing.T) {
	b := fake()
	h := serve(t, b)
	for path, keys := range map[string]string{
		"/containers/json": "ancestor before exited expose health id is-task isolation label name network publish since status volume",
		"/networks":        "dangling driver id label name scope type",
		"/volumes":         "dangling driver label name",
		"/images/json":     "before dangling label reference since until",
	} {
		for _, k := range strings.Fields(keys) {
			h.want(200, "GET", path+"?filters="+url.QueryEscape(`{"`+k+`":["x"]}`), "")
			h.want(200, "GET", path+"?filters="+url.QueryEscape(`{"`+k+`":{"x":true}}`), "")
		}
		m := h.message(400, "GET", path+"?filters="+url.QueryEscape(`{"colour":["x"]}`), "")
		if m != "invalid filter 'colour'" {
			t.Error(m)
		}
		h.want(400, "GET", path+"?filters=nonsense", "")
	}
	h.want(200, "GET", `/containers/json?filters={"label":{"a=b%26c":true}}`, "")
	if got := b.Last.(isle.ListOptions).Filters; fmt.Sprint(got) != "map[label:[a=b&c]]" {
		t.Error(got)
	}
	for _, path := range []string{"/containers/prune", "/images/prune", "/networks/prune", "/volumes/prune"} {
		h.want(400, "POST", path+`?filters={"name":["x"]}`, "")
		h.want(200, "POST", path+`?filters={"label!":["x"]}`, "")
	}
}

func created(t *testing.T, version, body string) (isle.CreateOptions, map[string]any) {
	t.Helper()
	b := fake()
	h := serve(t, b)
	m := h.object(201, "POST", "/v"+version+"/containers/create?name=x", body)
	return b.Last.(isle.CreateOptions), m
}

func TestTrap08Endpoints(t *testing.T) {
	const two = `{"Image":"toolbox","NetworkingConfig":{"EndpointsConfig":{"b":{"GwPriority":7,"MacAddress":"02:00:00:00:00:01"},"a":null}}}`
	h := serve(t, fake())
	if m := h.message(400, "POST", "/v1.43/containers/create", two); m != "Container cannot be connected to network endpoints: a, b" {
		t.Error(m)
	}
	o, _ := created(t, "1.44", two)
	if eps := o.Networking.EndpointsConfig; eps["a"] == nil || eps["b"].GwPriority != 0 || eps["b"].MacAddress.String() != "02:00:00:00:00:01" {
		t.Error(eps)
	}
	o, _ = created(t, "1.48", two)
	if got := o.Networking.EndpointsConfig["b"].GwPriority; got != 7 {
		t.Error(got)
	}
	o, _ = created(t, "1.52", `{"Image":"toolbox","MacAddress":"02:00:00:00:00:01"}`)
	if o.Host.NetworkMode != "default" || len(o.Networking.EndpointsConfig) != 0 {
		t.Errorf("%q %v", o.Host.NetworkMode, o.Networking.EndpointsConfig)
	}
	for v, warnings := range map[string]int{"1.43": 0, "1.44": 1} {
		o, m := created(t, v, `{"Image":"toolbox","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"app"}}`)
		if ep := o.Networking.EndpointsConfig["app"]; ep.MacAddress.String() != "02:00:00:00:00:01" || len(m["Warnings"].([]any)) != warnings {
			t.Errorf("%s: %v %v", v, ep, m)
		}
	}
	h.want(400, "POST", "/v1.44/containers/create", `{"Image":"toolbox","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}}`)
	o, _ = created(t, "1.47", `{"Image":"toolbox","HostConfig":{"NetworkMode":"app","Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","net.core.somaxconn":"9"}}}`)
	if got := o.Networking.EndpointsConfig["app"].DriverOpts["com.docker.network.endpoint.sysctls"]; got != "net.ipv4.conf.IFNAME.log_martians=1" || len(o.Host.Sysctls) != 1 {
		t.Error(got, o.Host.Sysctls)
	}
	b := fake()
	h = serve(t, b)
	h.want(200, "POST", "/v1.52/networks/bridge/connect", `{"Container":"c","EndpointConfig":{"GwPriority":3,"MacAddress":"02:00:00:00:00:01"}}`)
	if ep := b.Last.(network.ConnectRequest).EndpointConfig; ep.GwPriority != 3 || ep.MacAddress != nil {
		t.Error(ep)
	}
}

func TestTrap08AliasesByVersion(t *testing.T) {
	h := serve(t, fake())
	id := h.create("x", "sleep", `,"NetworkingConfig":{"EndpointsConfig":{"app":{"Aliases":["db"],"DNSNames":["x"],"GwPriority":1},"bridge":{}}}`)
	for v, want := range map[string]string{"1.43": "[db " + id[:12] + "] <nil> 0", "1.44": "[db " + id[:12] + "] [x] 0", "1.45": "[db] [x] 0", "1.48": "[db] [x] 1"} {
		nets := h.object(200, "GET", "/v"+v+"/containers/x/json", "")["NetworkSettings"].(map[string]any)["Networks"].(map[string]any)
		app := nets["app"].(map[string]any)
		if got := fmt.Sprint(app["Aliases"], " ", app["DNSNames"], " ", app["GwPriority"]); got != want {
			t.Errorf("%s: %s, want %s", v, got, want)
		}
		if got := nets["bridge"].(map[string]any)["Aliases"]; got != nil {
			t.Errorf("%s: alias %v on the default bridge", v, got)
		}
	}
}

func TestTrap09PortsNullAndEmpty(t *testing.T) {
	h := serve(t, ports{fake()})
	text := h.want(200, "GET", "/containers/x/json", "")
	if want := `"Ports":{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"81/tcp":[]}`; !strings.Contains(text, want) {
		t.Error(text)
	}
}

type ports struct{ *servertest.Backend }

func (ports) ContainerInspect(context.Context, string, bool) (c container.InspectResponse, err error) {
	err = json.Unmarshal([]byte(`{"Id":"x","NetworkSettings":{"Ports":{"443/tcp":null,"81/tcp":[],"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}}}`), &c)
	return c, err
}

func TestTrap10Archive(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.create("x", "sleep", "") // not started
	status, header, body := h.do("HEAD", "/containers/x/archive?path=/etc/file", "")
	stat, err := base64.StdEncoding.DecodeString(header.Get("X-Docker-Container-Path-Stat"))
	if status != 200 || body != "" || err != nil || !strings.Contains(string(stat), `"name":"file"`) {
		t.Error(status, body, string(stat), err)
	}
	_, header, body = h.do("GET", "/containers/x/archive?path=/etc/file", "")
	if header.Get("X-Docker-Container-Path-Stat") == "" || header.Get("Content-Type") != "application/x-tar" || !strings.Contains(body, servertest.File) {
		t.Error(header)
	}
	h.want(404, "GET", "/containers/x/archive?path=/missing", "")
	h.want(400, "GET", "/containers/x/archive", "")
	big := strings.Repeat("x", 6<<20) // more than JSON may have
	h.want(200, "PUT", "/containers/x/archive?path=/etc/.&noOverwriteDirNonDir=true&copyUIDGID=1", big, "Content-Type", "application/x-tar")
	if want := (servertest.Put{Path: "/etc/.", Bytes: 6 << 20, Opts: isle.PutOptions{NoOverwriteDirNonDir: true, CopyUIDGID: true}}); b.Last != want {
		t.Error(b.Last)
	}
}

func TestTrap11Pull(t *testing.T) {
	b := fake()
	h := serve(t, b)
	text := h.want(200, "POST", "/images/create?fromImage=reg:5000/img&tag=1&platform=linux/arm64/v8", "", "X-Registry-Auth", base64.URLEncoding.EncodeToString([]byte(`{"username":"ä?>","password":"p"}`)))
	if !strings.HasSuffix(text, `{"status":"Status: Downloaded newer image for reg:5000/img:1"}`+"\r\n") || strings.Count(text, "\r\n") != 2 {
		t.Errorf("%q", text)
	}
	if o := b.Last.(image.PullOptions); o.Auth == nil || o.Auth.Username != "ä?>" || o.Platform.Variant != "v8" || o.All {
		t.Errorf("%+v", o)
	}
	if m := h.message(404, "POST", "/images/create?fromImage=absent&tag=latest", ""); m != "pull access denied for absent:latest" {
		t.Error(m)
	}
	text = h.want(200, "POST", "/images/create?fromImage=broken&tag=latest", "")
	if !strings.HasSuffix(text, `{"errorDetail":{"message":"layer sha256:1: unexpected digest"},"error":"layer sha256:1: unexpected digest"}`+"\r\n") {
		t.Errorf("%q", text)
	}
	for _, bad := range []string{"%%%", "bm90IGpzb24=", "e30="} {
		h.want(200, "POST", "/images/create?fromImage=reg:5000/img", "", "X-Registry-Auth", bad)
		if o := b.Last.(image.PullOptions); o.Auth != nil || !o.All {
			t.Errorf("%s: %+v", bad, o)
		}
	}
	h.want(400, "POST", "/images/create?fromImage=a&platform=no/such/thing/at/all", "")
	h.want(400, "POST", "/images/create", "")
	h.want(200, "POST", "/images/create?fromImage=img&tag=sha256:"+strings.Repeat("0", 64), "")
	if o := b.Last.(image.PullOptions); o.All {
		t.Error("a digest is one image")
	}
}

func TestTrap12Build(t *testing.T) {
	h := serve(t, fake())
	for _, path := range []string{"/session", "/grpc", "/build"} {
		if m := h.message(501, "POST", path, "", "Connection", "Upgrade", "Upgrade", "h2c"); !strings.Contains(m, "build comes later") {
			t.Error(m)
		}
	}
	if m := h.object(200, "POST", "/build/prune", ""); m["SpaceReclaimed"] != 0.0 {
		t.Error(m)
	}
	h.want(404, "POST", "/build/cancel?id=x", "")
	if _, header, _ := h.do("HEAD", "/_ping", ""); header.Get("Builder-Version") != "1" {
		t.Error(header)
	}
}

func TestTrap13Info(t *testing.T) {
	h := serve(t, fake())
	m := h.object(200, "GET", "/v1.52/info", "")
	if s := m["Swarm"].(map[string]any); s["LocalNodeState"] != "inactive" || s["ControlAvailable"] != false || m["FirewallBackend"] == nil {
		t.Error(m)
	}
	if _, ok := m["BridgeNfIptables"]; ok {
		t.Error("1.52 has no BridgeNfIptables")
	}
	old := h.object(200, "GET", "/v1.24/info", "")
	if fmt.Sprint(old["SecurityOptions"], old["BridgeNfIptables"], old["RuncCommit"], old["FirewallBackend"], old["CgroupVersion"]) != "[seccomp] false map[Expected:v1 ID:v1] <nil> <nil>" {
		t.Error(old)
	}
	v := h.object(200, "GET", "/version", "")
	if v["ApiVersion"] != "1.52" || v["MinAPIVersion"] != "1.24" || !strings.Contains(fmt.Sprint(v["Components"]), "ApiVersion:1.52") {
		t.Error(v)
	}
}

func TestTrap14HealthByVersion(t *testing.T) {
	h := serve(t, fake())
	h.running("x", "sleep", "")
	for v, want := range map[string]bool{"1.51": false, "1.52": true} {
		if text := h.want(200, "GET", "/v"+v+"/containers/json", ""); strings.Contains(text, `"Health":`) != want {
			t.Errorf("%s: %s", v, text)
		}
	}
	h.kill("x")
	const body = `{"Image":"toolbox","Healthcheck":{"Test":["CMD","x"],"StartInterval":5000000}}`
	for v, want := range map[string]int64{"1.43": 0, "1.44": 5000000} {
		if o, _ := created(t, v, body); int64(o.Config.Healthcheck.StartInterval) != want {
			t.Errorf("%s: %v", v, o.Config.Healthcheck)
		}
	}
	if text := serveInspect(t); strings.Contains(text, `"Health"`) {
		t.Error("State.Health without a healthcheck: " + text)
	}
}

func serveInspect(t *testing.T) string {
	h := serve(t, fake())
	h.create("x", "sleep", "")
	return h.want(200, "GET", "/containers/x/json", "")
}

func TestTrap15Logs(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.running("x", "both", "")
	h.want(200, "POST", "/containers/x/wait", "")
	for v, want := range map[string]string{"1.52": muxed, "1.41": raw} {
		_, header, text := h.do("GET", "/v"+v+"/containers/x/logs?stdout=1&stderr=1", "")
		var out, errs bytes.Buffer
		if _, err := stdcopy.StdCopy(&out, &errs, strings.NewReader(text)); err != nil || out.String() != "to stdout\n" || errs.String() != "to stderr\n" || header.Get("Content-Type") != want {
			t.Error(v, out.String(), errs.String(), err, header)
		}
	}
	h.want(400, "GET", "/containers/x/logs", "")
	h.want(400, "GET", "/containers/x/logs?stdout=1&tail=some", "")
	h.want(200, "GET", "/containers/x/logs?stdout=1&tail=5&since=1.000000002&until=1970-01-01T00:00:03Z&details=1", "")
	o := b.Last.(isle.LogsOptions)
	if o.Tail != 5 || o.Since.UnixNano() != 1000000002 || o.Until.Unix() != 3 || !o.Details {
		t.Errorf("%+v", o)
	}
	h.want(200, "GET", "/containers/x/logs?stdout=1&tail=all", "")
	if o := b.Last.(isle.LogsOptions); o.Tail >= 0 || !o.Since.IsZero() {
		t.Errorf("%+v", o)
	}
	h.running("tty", "echo hi", `,"Tty":true`)
	if _, header, text := h.do("GET", "/containers/tty/logs?stdout=1&follow=1", ""); header.Get("Content-Type") != raw || text != "hi\n" {
		t.Error(header, text)
	}
}

func TestTrap15LogsFollowEndsWithTheContainer(t *testing.T) {
	h := serve(t, fake())
	id := h.create("x", "cat", `,"OpenStdin":true`)
	c, _, _ := h.hijack(attachTo("1.52", id, "stream=1&stdin=1&stdout=1", true))
	h.start(id)
	logs := h.open("GET", "/containers/x/logs?stdout=1&follow=1", "")
	defer logs.Body.Close()
	for _, word := range []string{"one", "two"} { // each arrives before the next is written
		_, _ = io.WriteString(c, word)
		frame := make([]byte, 8+len(word))
		if _, err := io.ReadFull(logs.Body, frame); err != nil || string(frame[8:]) != word || binary.BigEndian.Uint32(frame[4:]) != 3 {
			t.Fatalf("%q %v", frame, err)
		}
	}
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(logs.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

func TestTrap16DiskUsage(t *testing.T) {
	h := serve(t, fake())
	keys := func(path string) string {
		m := h.object(200, "GET", path, "")
		var k []string
		for _, name := range []string{"LayersSize", "Images", "Containers", "Volumes", "BuildCache", "ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"} {
			switch v, ok := m[name]; {
			case ok && v == nil:
				k = append(k, name+"=null")
			case ok:
				k = append(k, name)
			}
		}
		if u, ok := m["ImageUsage"].(map[string]any); ok && u["Items"] != nil {
			k = append(k, "items")
		}
		return strings.Join(k, " ")
	}
	for path, want := range map[string]string{
		"/v1.51/system/df":            "LayersSize Images Containers Volumes BuildCache",
		"/v1.42/system/df?type=image": "LayersSize Images Containers=null Volumes=null BuildCache=null",
		"/v1.52/system/df":            "LayersSize Images Containers Volumes BuildCache ImageUsage ContainerUsage VolumeUsage BuildCacheUsage",
		"/v1.52/system/df?verbose=1":  "ImageUsage ContainerUsage VolumeUsage BuildCacheUsage items",
	} {
		if got := keys(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	h.want(400, "GET", "/system/df?type=memory", "")
}

func TestTrap16DiskUsageShared(t *testing.T) {
	b := &slowUsage{Backend: fake(), in: make(chan struct{}, 9), out: make(chan struct{})}
	h := serve(t, b)
	first := h.dial()
	fmt.Fprintf(first, "GET /system/df HTTP/1.1\r\nHost: x\r\n\r\n")
	<-b.in
	done := make(chan string, 3)
	for range 3 {
		go func() {
			_, _, text := h.do("GET", "/system/df", "")
			done <- text
		}()
	}
	first.Close() // leaves; the others still get their answer
	close(b.out)
	for range 3 {
		if text := <-done; !strings.Contains(text, "ImageUsage") {
			t.Error(text)
		}
	}
	if n := b.calls.Load(); n > 4 {
		t.Errorf("computed %d times", n)
	}
}

type slowUsage struct {
	*servertest.Backend
	calls   atomic.Int32
	in, out chan struct{}
}

func (b *slowUsage) DiskUsage(ctx context.Context, o []system.DiskUsageObject) (system.DiskUsage, error) {
	b.calls.Add(1)
	b.in <- struct{}{}
	<-b.out
	if ctx.Err() != nil {
		return system.DiskUsage{}, errors.New("gave up with the first client")
	}
	return b.Backend.DiskUsage(ctx, o)
}

func TestTrap17Mounts(t *testing.T) {
	host := func(v, mounts string) []mount.Mount {
		o, _ := created(t, v, `{"Image":"toolbox","HostConfig":{"Mounts":[`+mounts+`]}}`)
		return o.Host.Mounts
	}
	h := serve(t, fake())
	refused := func(v, m string) string {
		return h.message(400, "POST", "/v"+v+"/containers/create", `{"Image":"toolbox","HostConfig":{"Mounts":[`+m+`]}}`)
	}
	const ro = `{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}`
	if m := host("1.43", ro); !m[0].BindOptions.ReadOnlyNonRecursive {
		t.Error(m)
	}
	if m := host("1.44", ro); m[0].BindOptions != nil {
		t.Error(m)
	}
	if m := host("1.41", `{"Type":"bind","BindOptions":{"CreateMountpoint":true}}`); m[0].BindOptions.CreateMountpoint {
		t.Error(m)
	}
	for v, m := range map[string]string{
		"1.44": `{"Type":"volume","VolumeOptions":{"Subpath":"a"}}`,
		"1.45": `{"Type":"tmpfs","TmpfsOptions":{"Options":[["exec"]]}}`,
		"1.47": `{"Type":"image"}`,
	} {
		if text := refused(v, m); !strings.Contains(text, "needs API v1.") {
			t.Error(text)
		}
	}
	if text := refused("1.42", `{"Type":"bind","VolumeOptions":{}}`); !strings.Contains(text, "VolumeOptions must not be specified") {
		t.Error(text)
	}
	b := fake()
	h = serve(t, b)
	h.want(200, "POST", "/v1.41/volumes/prune", "")
	if fmt.Sprint(b.Last) != "map[all:[true]]" {
		t.Error(b.Last)
	}
	h.want(200, "POST", "/v1.42/volumes/prune", "")
	if fmt.Sprint(b.Last) != fmt.Sprint(filters.Args(nil)) {
		t.Error(b.Last)
	}
	h.want(201, "POST", "/volumes/create", "")
	if _, ok := b.Last.(volumetypes.CreateRequest); !ok {
		t.Error(b.Last)
	}
	h.want(409, "DELETE", "/volumes/used", "")
	if text := h.want(200, "GET", "/volumes", ""); !strings.HasPrefix(text, `{"Volumes":[]`) {
		t.Error(text)
	}
}

// What inspect gives must be good to create with.
func TestTrap18WatchtowerCreate(t *testing.T) {
	for _, v := range []string{"1.24", "1.40", "1.43", "1.52"} {
		h := serve(t, fake())
		h.create("old", "sleep", `,"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAddress":"172.17.0.2","Gateway":"172.17.0.1","MacAddress":"02:42:ac:11:00:02","GlobalIPv6Address":""}}}`)
		in := h.object(200, "GET", "/v"+v+"/containers/old/json", "")
		body := in["Config"].(map[string]any)
		body["HostConfig"] = in["HostConfig"]
		body["NetworkingConfig"] = map[string]any{"EndpointsConfig": in["NetworkSettings"].(map[string]any)["Networks"]}
		b, _ := json.Marshal(body)
		h.want(201, "POST", "/v"+v+"/containers/create?name=new", string(b))
		ep, _ := json.Marshal(map[string]any{"Container": "new", "EndpointConfig": in["NetworkSettings"].(map[string]any)["Networks"].(map[string]any)["bridge"]})
		h.want(200, "POST", "/v"+v+"/networks/bridge/connect", string(ep))
		h.want(200, "POST", "/v"+v+"/networks/bridge/disconnect", `{"Container":"old","Force":true}`)
	}
}

func TestTrap19Ryuk(t *testing.T) {
	b := fake()
	h := serve(t, b)
	const label = "org.testcontainers=true&x"
	o, _ := created(t, "1.32", `{"Image":"toolbox","Labels":{"org.testcontainers":"true&x"},"HostConfig":{"AutoRemove":true,"Binds":["/run/isle/isle.sock:/var/run/docker.sock"]}}`)
	if !o.Host.AutoRemove || o.Host.Binds[0] != "/run/isle/isle.sock:/var/run/docker.sock" {
		t.Errorf("%+v", o.Host)
	}
	h.running("x", "sleep", `,"Labels":{"org.testcontainers":"true&x"}`)
	h.running("y", "sleep", "")
	f, _ := json.Marshal(map[string][]string{"label": {label}})
	if text := h.want(200, "GET", "/containers/json?filters="+url.QueryEscape(string(f)), ""); strings.Count(text, `"Id"`) != 1 {
		t.Error(text)
	}
	h.kill("x")
	h.kill("y")
}

func TestTrap20Errors(t *testing.T) {
	h := serve(t, fake())
	id := h.running("web", "sleep", "")
	for _, c := range []struct {
		status             int
		method, path, want string
	}{
		{404, "GET", "/containers/none/json", "No such container: none"},
		{404, "GET", "/images/none/json", "No such image: none"},
		{404, "GET", "/networks/none", "network none not found"},
		{404, "GET", "/volumes/missing", "get missing: no such volume"},
		{404, "GET", "/nonsense", "page not found"},
		{404, "PATCH", "/containers/json", "page not found"},
		{404, "GET", "/plugins/x/y/json", `plugin "x/y" not found`},
		{409, "DELETE", "/containers/web", `cannot remove container "/web": container is running: stop the container before removing or force remove`},
		{501, "GET", "/images/search?term=x", "isle does not search registries; hint: use the registry's own page, such as https://hub.docker.com/search"},
	} {
		if m := h.message(c.status, c.method, c.path, ""); m != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, m, c.want)
		}
	}
	m := h.message(409, "POST", "/containers/create?name=web", `{"Image":"toolbox"}`)
	if want := `Conflict. The container name "/web" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`; m != want {
		t.Error(m)
	}
	if body := h.want(304, "POST", "/containers/web/start", ""); body != "" {
		t.Errorf("304 with a body: %q", body)
	}
	h.kill("web")
	h.want(401, "POST", "/auth", `{"username":"a","password":"wrong"}`)
	h.want(200, "POST", "/auth", `{"username":"a","password":"right"}`)
}

func TestTrap21KeepAlive(t *testing.T) {
	h := serve(t, fake())
	id := h.create("x", "sleep", "")
	c := h.dial()
	defer c.Close()
	r := bufio.NewReader(c)
	for _, step := range []struct {
		request string
		status  int
	}{
		{"POST /containers/" + id + "/start", 204}, {"POST /containers/" + id + "/start", 304}, {"POST /containers/" + id + "/start", 304},
		{"GET /containers/" + id + "/json", 200}, {"HEAD /_ping", 200}, {"POST /containers/none/start", 404}, {"OPTIONS /anything", 200}, {"POST /containers/x/kill", 204},
	} {
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", step.request)
		method, _, _ := strings.Cut(step.request, " ")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil || resp.StatusCode != step.status {
			t.Fatalf("%s: %v %v", step.request, resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTrap21Names(t *testing.T) {
	b := fake()
	h := serve(t, b)
	h.create("web", "sleep", "")
	for _, path := range []string{"/containers/web/json", "/v1.40/containers//web/json", "/containers/%2Fweb/json", "/containers/web/json/"} {
		h.want(200, "GET", path, "")
	}
	h.want(404, "GET", "/containers/../containers/web/json", "")
	h.want(200, "POST", "/images/create?fromImage=reg.io:5000/a/b/json&tag=1", "")
	for _, name := range []string{"reg.io:5000/a/b/json:1", "reg.io:5000%2Fa%2Fb%2Fjson:1"} {
		h.want(200, "GET", "/images/"+name+"/json", "")
		h.want(200, "GET", "/images/"+name+"/history", "")
		h.want(200, "GET", "/v1.30/images/"+name+"/get", "")
		h.want(200, "DELETE", "/images/"+name, "")
		h.want(200, "POST", "/images/"+name+"/push", "", "X-Registry-Auth", "e30=")
		h.want(201, "POST", "/images/"+name+"/tag?repo=x/y&tag=2", "")
		if b.Last != "reg.io:5000/a/b/json:1 → x/y:2" {
			t.Error(b.Last)
		}
	}
	h.want(200, "GET", "/distribution/reg.io/a/b:1/json", "", "X-Registry-Auth", base64.URLEncoding.EncodeToString([]byte(`{"identitytoken":"t"}`)))
	if a := b.Last.(*registry.AuthConfig); a.IdentityToken != "t" {
		t.Error(a)
	}
	if text := h.want(200, "GET", "/images/json/", ""); !strings.HasPrefix(text, "[") { // stays a list
		t.Error(text)
	}
}

func TestTrap22NoHTTP2(t *testing.T) {
	h := serve(t, fake())
	c := h.dial()
	defer c.Close()
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	answer, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 505") && !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("%q", answer)
	}
}
