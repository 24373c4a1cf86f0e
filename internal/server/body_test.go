package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	isle "isle/internal/container"
)

const createPath = "/v1.52/containers/create"

func TestBodies(t *testing.T) {
	for _, c := range []struct {
		name, body, kind string
		status           int
		message          string
	}{
		{"fine", `{"Image":"toolbox"}`, "application/json", 201, ""},
		{"charset", `{"Image":"toolbox"}`, "application/json; charset=utf-8", 201, ""},
		{"unknown fields", `{"Image":"toolbox","Colour":{"a":[1]},"HostConfig":{"KernelMemory":"what","Shape":1}}`, "application/json", 201, ""},
		{"case of fields", `{"image":"toolbox","hostconfig":{"autoremove":true}}`, "application/json", 201, ""},
		{"command as a string", `{"Image":"toolbox","Cmd":"sleep","Entrypoint":"sh"}`, "application/json", 201, ""},
		{"white space behind", `{"Image":"toolbox"}` + "\n\n", "application/json", 201, ""},
		{"empty", "", "application/json", 400, "invalid JSON: got EOF while reading request body"},
		{"null", "null", "application/json", 400, "config cannot be empty in order to create a container"},
		{"no fields", "{}", "application/json", 400, "config cannot be empty in order to create a container"},
		{"not JSON", "Image=toolbox", "application/json", 400, "invalid JSON: invalid character 'I' looking for beginning of value"},
		{"cut off", `{"Image":"tool`, "application/json", 400, "invalid JSON: unexpected EOF"},
		{"wrong type", `{"Image":7}`, "application/json", 400, "invalid JSON: json: cannot unmarshal number into Go struct field"},
		{"wrong type inside", `{"Image":"toolbox","HostConfig":{"Memory":"64m"}}`, "application/json", 400, "invalid JSON: json: cannot unmarshal string into Go struct field"},
		{"array", `[]`, "application/json", 400, "invalid JSON: json: cannot unmarshal array"},
		{"command of numbers", `{"Image":"toolbox","Cmd":[1]}`, "application/json", 400, "invalid JSON: json: cannot unmarshal number"},
		{"address", `{"Image":"toolbox","HostConfig":{"Dns":["nine"]}}`, "application/json", 400, "invalid JSON: "},
		{"garbage behind", `{"Image":"toolbox"} {}`, "application/json", 400, "unexpected content after JSON"},
		{"brace behind", `{"Image":"toolbox"}}`, "application/json", 400, "unexpected content after JSON"},
		{"form", `a=b`, "application/x-www-form-urlencoded", 400, "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'"},
		{"no type", `{}`, "", 400, "malformed Content-Type header (): mime: no media type"},
		{"capabilities", `{"Image":"toolbox","HostConfig":{"Capabilities":[]}}`, "application/json", 201, ""},
		{"deep", strings.Repeat("[", 20000), "application/json", 400, "invalid JSON: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t, fake())
			status, _, text := h.do("POST", createPath, c.body, "Content-Type", c.kind)
			if status != c.status || !strings.Contains(text, c.message) {
				t.Errorf("%d %s, want %d %s", status, text, c.status, c.message)
			}
		})
	}
	h := serve(t, fake())
	h.want(400, "POST", "/v1.40/containers/create", `{"Image":"toolbox","HostConfig":{"Capabilities":["NET_ADMIN"]}}`)
	h.want(400, "POST", "/containers/x/start", `{"Binds":["/:/host"]}`)
	h.want(400, "POST", "/networks/create", "")
	h.want(400, "GET", "/containers/json?limit=many", "")
	h.want(400, "GET", "/containers/json?all=%zz", "")
}

// A body that is announced as 100 MB is refused before it is read.
func TestBodyOf100MB(t *testing.T) {
	h := serve(t, fake())
	c := h.dial()
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n{", createPath)
	answer, err := io.ReadAll(c) // the connection is closed: nobody reads the rest
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") || !strings.Contains(string(answer), `{"message":"request body of 100000000 bytes is larger than 4194304`) {
		t.Errorf("%q %v", answer, err)
	}
}

// One whose length is not announced is read up to the limit.
func TestBodyOf100MBInChunks(t *testing.T) {
	h := serve(t, fake())
	c := h.dial()
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n", createPath)
	chunk := "10000\r\n" + strings.Repeat(" ", 1<<16) + "\r\n"
	sent := 0
	for sent < 100_000_000 {
		n, err := io.WriteString(c, chunk)
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 16<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
	answer, _ := io.ReadAll(c)
	if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") { // it may be lost with the reset
		t.Errorf("%q", answer)
	}
}

// The two ways in which what was decided on was not what was done: a body that
// is not there for whoever decides.
func TestCVE_2026_34040_LargeBodyIsSeenWhole(t *testing.T) {
	b := fake()
	h := serve(t, b)
	pad := strings.Repeat("x", 2<<20)
	h.want(201, "POST", createPath, `{"Image":"toolbox","Labels":{"pad":"`+pad+`"},"HostConfig":{"Privileged":true}}`)
	if o := b.Last.(isle.CreateOptions); !o.Host.Privileged || len(o.Config.Labels["pad"]) != len(pad) {
		t.Error("a part of the body was not decoded")
	}
	b.Last = nil
	h.want(413, "POST", createPath, `{"Image":"toolbox","HostConfig":{"Privileged":true},"Labels":{"pad":"`+strings.Repeat("x", 5<<20)+`"}}`)
	if b.Last != nil {
		t.Error("a body over the limit reached the engine")
	}
}

func TestCVE_2024_41110_ContentLengthZero(t *testing.T) {
	b := fake()
	h := serve(t, b)
	c := h.dial()
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n{\"Image\":\"toolbox\",\"HostConfig\":{\"Privileged\":true}}", createPath)
	answer, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || b.Last != nil {
		t.Errorf("%q, engine got %v", answer, b.Last)
	}
	// Both lengths at once must not be read by one and not the other.
	c2 := h.dial()
	defer c2.Close()
	fmt.Fprintf(c2, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\nContent-Length: 50\r\n\r\n{}", createPath)
	answer, _ = io.ReadAll(c2)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || b.Last != nil {
		t.Errorf("%q", answer)
	}
}

func TestVersions(t *testing.T) {
	h := serve(t, fake())
	for path, want := range map[string]string{
		"/v1.53/info":                 "client version 1.53 is too new. Maximum supported API version is 1.52",
		"/v1.99/info":                 "client version 1.99 is too new. Maximum supported API version is 1.52",
		"/v2.0/info":                  "client version 2.0 is too new. Maximum supported API version is 1.52",
		"/v1.99999999999999999/_ping": "client version 1.99999999999999999 is too new. Maximum supported API version is 1.52",
		"/v1.23/info":                 "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
		"/v0.9/info":                  "client version 0.9 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
	} {
		if m := h.message(400, "GET", path, ""); m != want {
			t.Errorf("%s: %q", path, m)
		}
	}
	for _, path := range []string{"/v1.24/info", "/v1.52/info", "/info", "/v1.30/_ping"} {
		_, header, _ := h.do("GET", path, "")
		if header.Get("Api-Version") != "1.52" || header.Get("Ostype") != "linux" || header.Get("Docker-Experimental") != "false" || header.Get("Server") != "Isle/0.1 (linux)" {
			t.Errorf("%s: %v", path, header)
		}
	}
	for _, path := range []string{"/v1/info", "/v1.x/info", "/v1.52", "/v1.52/v1.52/info", "/"} {
		h.want(404, "GET", path, "")
	}
}

func TestSwarm(t *testing.T) {
	h := serve(t, fake())
	const want = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	for _, c := range []string{
		"GET /swarm", "POST /swarm/init", "GET /nodes", "GET /nodes/x", "GET /services", "POST /services/x/update", "GET /tasks",
		"GET /tasks/x/logs", "GET /secrets", "POST /configs/create", "PUT /volumes/x",
	} {
		method, path, _ := strings.Cut(c, " ")
		if m := h.message(http.StatusServiceUnavailable, method, "/v1.41"+path, ""); m != want {
			t.Errorf("%s: %q", c, m)
		}
	}
}

func TestImageShapes(t *testing.T) {
	h := serve(t, fake())
	for v, want := range map[string]struct{ has, hasNot string }{
		"1.52": {`"Descriptor" "Config":{"Cmd"`, `"Parent" "Hostname" "VirtualSize" "ContainerConfig" "Comment"`},
		"1.51": {`"Parent":"" "DockerVersion":"" "Comment":"" "Entrypoint":null "User":"" "Descriptor"`, `"Hostname" "VirtualSize"`},
		"1.49": {`"Hostname":"" "OpenStdin":false "Parent":""`, `"VirtualSize" "ContainerConfig"`},
		"1.47": {`"Hostname":""`, `"Descriptor"`},
		"1.44": {`"ContainerConfig":{ "Container":""`, `"VirtualSize"`},
		"1.43": {`"VirtualSize":1048576 "Created":"0001-01-01T00:00:00Z"`, `"Descriptor"`},
	} {
		text := h.want(200, "GET", "/v"+v+"/images/toolbox/json", "")
		for _, s := range strings.Fields(want.has) {
			if !strings.Contains(text, s) {
				t.Errorf("%s: no %s in %s", v, s, text)
			}
		}
		for _, s := range strings.Fields(want.hasNot) {
			if strings.Contains(text, s) {
				t.Errorf("%s: %s in %s", v, s, text)
			}
		}
	}
	for v, want := range map[string]string{"1.51": `"Containers":1`, "1.50": `"Containers":-1`, "1.43": `"VirtualSize":1048576`} {
		if text := h.want(200, "GET", "/v"+v+"/images/json", ""); !strings.Contains(text, want) {
			t.Errorf("%s: %s", v, text)
		}
	}
}

func TestContainerShapes(t *testing.T) {
	h := serve(t, fake())
	h.create("x", "sleep", `,"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAddress":"172.17.0.2","MacAddress":"02:42:ac:11:00:02","IPPrefixLen":16}}}`)
	for v, want := range map[string]struct{ has, hasNot string }{
		"1.52": {`"Networks"`, `"HairpinMode" "KernelMemory" "OnBuild"`},
		"1.51": {`"HairpinMode":false "SecondaryIPAddresses":null "OnBuild":null "Bridge":"" "IPPrefixLen":16,"IPv6Gateway":"","MacAddress":"02:42:ac:11:00:02"}`, `"KernelMemory"`},
		"1.41": {`"KernelMemory":0 "KernelMemoryTCP":0`, ``},
	} {
		text := h.want(200, "GET", "/v"+v+"/containers/x/json", "")
		for _, s := range strings.Fields(want.has) {
			if !strings.Contains(text, s) {
				t.Errorf("%s: no %s in %s", v, s, text)
			}
		}
		for _, s := range strings.Fields(want.hasNot) {
			if strings.Contains(text, s) {
				t.Errorf("%s: %s in %s", v, s, text)
			}
		}
	}
}

func TestNetworkShapes(t *testing.T) {
	h := serve(t, fake())
	for v, want := range map[string]bool{"1.47": false, "1.48": true} {
		for _, path := range []string{"/networks", "/networks/bridge"} {
			text := h.want(200, "GET", "/v"+v+path, "")
			if strings.Contains(text, `"EnableIPv4":true`) != want || !strings.Contains(text, `"Containers":{}`) {
				t.Errorf("%s %s: %s", v, path, text)
			}
		}
	}
	h.want(404, "GET", "/networks/bridge?scope=swarm", "")
}

func TestOldRequests(t *testing.T) {
	for _, c := range []struct {
		version, body string
		ok            func(isle.CreateOptions) bool
	}{
		{"1.39", `{"Image":"toolbox"}`, func(o isle.CreateOptions) bool { return o.Host.IpcMode == "shareable" && o.Host.CgroupnsMode == "host" }},
		{"1.41", `{"Image":"toolbox"}`, func(o isle.CreateOptions) bool { return o.Host.IpcMode == "" && o.Host.CgroupnsMode == "" }},
		{"1.41", `{"Image":"toolbox","HostConfig":{"ConsoleSize":[1,2]}}`, func(o isle.CreateOptions) bool { return o.Host.ConsoleSize == [2]uint{} }},
		{"1.42", `{"Image":"toolbox","HostConfig":{"ConsoleSize":[1,2]}}`, func(o isle.CreateOptions) bool { return o.Host.ConsoleSize == [2]uint{1, 2} }},
		{"1.52", `{"Image":"toolbox","HostConfig":{"PidsLimit":-1}}`, func(o isle.CreateOptions) bool { return o.Host.PidsLimit == nil }},
		{"1.52", `{"Image":"toolbox","HostConfig":{"PidsLimit":5}}`, func(o isle.CreateOptions) bool { return *o.Host.PidsLimit == 5 }},
		{"1.42", `{"Image":"toolbox","HostConfig":{"Annotations":{"a":"b"}}}`, func(o isle.CreateOptions) bool { return o.Host.Annotations == nil }},
		{"1.52", `{"Image":"toolbox","Cmd":"a b"}`, func(o isle.CreateOptions) bool { return len(o.Config.Cmd) == 1 && o.Config.Cmd[0] == "a b" }},
	} {
		if o, _ := created(t, c.version, c.body); !c.ok(o) {
			t.Errorf("%s %s: %+v", c.version, c.body, o.Host)
		}
	}
}
