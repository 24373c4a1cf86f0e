package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isle/internal/cni"
)

// environment is one to be called with.
func environment(command string) func(string) string {
	vars := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "pod", "CNI_NETNS": "/run/netns/a b", "CNI_IFNAME": "eth0", "CNI_ARGS": "A=1;B=&x=%"}
	return func(k string) string { return vars[k] }
}

// listen answers on a socket of the test's.
func listen(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "isle.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return socket
}

func call(command, conf string) (code int, out string) {
	var b bytes.Buffer
	code = run(strings.NewReader(conf), &b, io.Discard, environment(command))
	return code, strings.TrimSpace(b.String())
}

func failed(t *testing.T, out string) (f failure) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return f
}

// TestHandsOver: isled gets all that the plugin was called with, and its answer is
// printed as it is.
func TestHandsOver(t *testing.T) {
	t.Parallel()
	var conf string
	socket := listen(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := r.URL.Query()
		if r.Method != "POST" || r.URL.Path != "/isle/v1/cni/add" || string(body) != conf || r.Header.Get("Content-Type") != "application/json" ||
			q.Get("containerID") != "pod" || q.Get("netns") != "/run/netns/a b" || q.Get("ifname") != "eth0" || q.Get("args") != "A=1;B=&x=%" {
			t.Errorf("%s %s %s", r.Method, r.URL, body)
		}
		io.WriteString(w, `{"cniVersion":"1.0.0"}`)
	})
	conf = `{"cniVersion": "1.0.0", "name": "pods", "socket": "unix://` + socket + `"}`
	if code, out := call("ADD", conf); code != 0 || out != `{"cniVersion":"1.0.0"}` {
		t.Errorf("%d %s", code, out)
	}
}

func TestPassesErrorsOn(t *testing.T) {
	t.Parallel()
	for status, c := range map[int]struct {
		answer string
		code   int
	}{
		409: {`{"cniVersion":"1.0.0","code":100,"msg":"taken"}`, 100},
		404: {`{"message":"page not found"}`, codeAgain}, // an isled without CNI
		200: {`{"cniVersion":"1.0.`, codeAgain},          // it died
	} {
		socket := listen(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, c.answer)
		})
		code, out := call("ADD", `{"cniVersion": "1.0.0", "socket": "`+socket+`"}`)
		if f := failed(t, out); code != 1 || f.Code != c.code || f.CNIVersion != "1.0.0" {
			t.Errorf("status %d: %d %s", status, code, out)
		}
	}
}

func TestWithoutIsled(t *testing.T) {
	t.Parallel()
	conf := `{"cniVersion": "1.1.0", "socket": "` + filepath.Join(t.TempDir(), "none.sock") + `"}`
	for command, want := range map[string]int{"ADD": codeAgain, "DEL": codeAgain, "CHECK": codeAgain, "GC": codeAgain, "STATUS": codeUnavailable} {
		code, out := call(command, conf)
		if f := failed(t, out); code != 1 || f.Code != want || !strings.Contains(f.Details, "running") {
			t.Errorf("%s: %s", command, out)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if !slices.Equal(versions, cni.Versions) {
		t.Errorf("isled serves %v", cni.Versions)
	}
	code, out := call("VERSION", `{"cniVersion": "1.0.0"}`)
	if code != 0 || out != `{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}` {
		t.Errorf("%d %s", code, out)
	}
}

func TestWrongInput(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string]int{"": codeDecode, "{": codeDecode, `{"socket": 1}`: codeDecode, `"` + strings.Repeat("x", maxConfig) + `"`: codeDecode} {
		if code, out := call("ADD", conf); code != 1 || failed(t, out).Code != want {
			t.Errorf("%.20q: %s", conf, out)
		}
	}
	if code, out := call("", "{}"); code != 1 || failed(t, out).Code != codeEnvironment {
		t.Errorf("%s", out)
	}
}
