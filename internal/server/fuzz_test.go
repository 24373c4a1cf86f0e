package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"isle/internal/server"
	"isle/internal/server/servertest"
)

// answered checks that a handler answered, and neither failed nor claimed to
// have failed itself.
func answered(t *testing.T, h http.Handler, req *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			t.Errorf("panic: %v", p)
		}
	}()
	h.ServeHTTP(w, req)
	if w.Code == http.StatusInternalServerError {
		t.Errorf("%s %s: %s", req.Method, req.URL, w.Body)
	}
	if w.Code >= 400 && req.Method != http.MethodHead && !strings.HasPrefix(w.Body.String(), `{"message":"`) {
		t.Errorf("%s %s: %d %q", req.Method, req.URL, w.Code, w.Body)
	}
}

func FuzzCreate(f *testing.F) {
	for _, body := range []string{
		`{"Image":"toolbox"}`, `{}`, `null`, `[`, `{"Image":"toolbox","Cmd":"a","Entrypoint":["b"],"MacAddress":"02:00:00:00:00:01"}`,
		`{"Image":"toolbox","HostConfig":{"Mounts":[{"Type":"bind","ReadOnly":true}],"PidsLimit":-1,"Sysctls":{"net.ipv4.conf.eth0.a":"1"},"NetworkMode":"x"},"NetworkingConfig":{"EndpointsConfig":{"x":null}}}`,
		`{"Image":"toolbox","ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}}}`,
	} {
		f.Add(body, uint8(52))
		f.Add(body, uint8(24))
	}
	h := server.New(server.Config{Backend: servertest.New()}).Handler()
	f.Fuzz(func(t *testing.T, body string, minor uint8) {
		path := "/v1." + []string{"24", "39", "40", "41", "43", "44", "47", "52"}[minor%8] + "/containers/create"
		req := httptest.NewRequest("POST", path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		answered(t, h, req)
	})
}

func FuzzBodies(f *testing.F) {
	paths := []string{
		"/containers/x/update", "/containers/x/exec", "/exec/x/start", "/networks/create", "/networks/x/connect", "/networks/x/disconnect",
		"/volumes/create", "/auth", "/commit?container=x",
	}
	for i := range paths {
		f.Add(uint8(i), `{"Name":"a","Cmd":["b"],"Container":"c","Force":true,"EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.1"}},"IPAM":{"Config":[{"Subnet":"10.0.0.0/24"}]}}`)
	}
	h := server.New(server.Config{Backend: servertest.New()}).Handler()
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		req := httptest.NewRequest("POST", paths[int(which)%len(paths)], strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		answered(t, h, req)
	})
}

func FuzzQueries(f *testing.F) {
	paths := []string{
		"/containers/json", "/images/json", "/networks", "/volumes", "/system/df", "/images/toolbox/json", "/images/toolbox/history",
		"/images/get", "/containers/x/logs", "/distribution/a/b/json", "/containers/x/archive",
	}
	for i := range paths {
		f.Add(uint8(i), `filters={"label":["a=b"]}&limit=3&platform={"os":"linux","architecture":"arm"}&since=1.5&tail=3&type=image&names=a&stdout=1&path=/`, "eyJ1c2VybmFtZSI6ImEifQ==")
	}
	h := server.New(server.Config{Backend: servertest.New()}).Handler()
	f.Fuzz(func(t *testing.T, which uint8, query, auth string) {
		req := httptest.NewRequest("GET", paths[int(which)%len(paths)], nil)
		req.URL.RawQuery = query
		req.Header.Set("X-Registry-Auth", auth)
		answered(t, h, req)
	})
}

func FuzzPaths(f *testing.F) {
	for _, p := range []string{"/v1.52/containers//x/json", "/images/a%2Fb/json", "/v1.99/_ping", "/../..", "/%2e%2e/x", "/v1.52", "//", "/images/%zz/json", "/a:b@c?d"} {
		f.Add(p)
	}
	h := server.New(server.Config{Backend: servertest.New()}).Handler()
	f.Fuzz(func(t *testing.T, path string) {
		req := httptest.NewRequest("GET", "/", nil)
		req.URL.Path, req.URL.RawPath = path, path
		if strings.Contains(path, "events") { // never ends
			return
		}
		answered(t, h, req)
	})
}

func BenchmarkPing(b *testing.B) {
	h := server.New(server.Config{Backend: servertest.New()}).Handler()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("HEAD", "/_ping", nil))
	}
}

// A list of 300 containers.
func BenchmarkList(b *testing.B) {
	back := servertest.New()
	h := server.New(server.Config{Backend: back}).Handler()
	for range 300 {
		req := httptest.NewRequest("POST", "/containers/create", strings.NewReader(`{"Image":"toolbox"}`))
		req.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(httptest.NewRecorder(), req)
	}
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/containers/json?all=1", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
