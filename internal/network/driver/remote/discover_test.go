package remote_test

import (
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// spec writes a specification.
func (s *site) spec(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.specs, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// TestFind : plugins are found where Docker finds them.
func TestFind(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", nil)
	if err := os.Mkdir(filepath.Join(s.sockets, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.run("plain", f)
	s.run("inside/inside", f)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	s.spec("text.spec", "unix://"+s.socket("plain")+"\n")
	s.spec("sub/sub.spec", "tcp://"+host)
	s.spec("web.spec", "http://"+host+"/ignored/path")
	s.spec("object.json", `{"Name":"else","Addr":"tcp://`+host+`"}`)
	s.spec("plain.spec", "tcp://127.0.0.1:1") // the socket comes first
	s.spec("sub/other.spec", "tcp://"+host)   // not where find looks
	r := s.registry()
	names := []string{"inside", "object", "plain", "sub", "text", "web"}
	for _, name := range names {
		if err := r.LookUp(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.LookUp(t.Context(), "other"); !errdefs.IsNotFound(err) {
		t.Errorf("a plugin in the directory of another: %v", err)
	}
}

// TestNotFound : what is no plugin, and why.
func TestNotFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.cfg.Wait = time.Millisecond
	s.run("address", answering("IpamDriver", nil))
	s.run("scope", answering("NetworkDriver", map[string]any{"NetworkDriver.GetCapabilities": `{"Scope":"galactic"}`}))
	s.run("manifest", answering("NetworkDriver", map[string]any{"Plugin.Activate": "hello"}))
	s.run("volume", answering("VolumeDriver", nil))
	s.spec("bad.spec", "/run/x.sock")
	s.spec("odd.spec", "ftp://host")
	s.spec("rel.spec", "unix://x.sock")
	s.spec("text.json", "unix:///run/x.sock")
	s.spec("long.spec", strings.Repeat("x", 2<<20))
	s.spec("gone.spec", "unix://"+s.socket("gone"))
	s.spec("secret.spec", "tcp://user:secret@host:1")
	s.spec("ca.json", `{"Addr":"https://127.0.0.1:1","TLSConfig":{"CAFile":"/nonexistent/ca.pem"}}`)
	if err := os.WriteFile(s.socket("file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(s.specs, "pipe.spec"), 0o644); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(filepath.Dir(s.specs), "outside.spec")
	if err := os.WriteFile(outside, []byte("tcp://127.0.0.1:1"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := s.registry()
	for name, c := range map[string]struct {
		is   func(error) bool
		text string
	}{
		"none":         {errdefs.IsNotFound, "could not find plugin none in v1 plugin registry: plugin not found"},
		"vieux/net:v1": {errdefs.IsNotFound, "hint: managed plugins"},
		"../outside":   {errdefs.IsInvalidArgument, `invalid plugin name "../outside"`},
		"a/../../x":    {errdefs.IsInvalidArgument, "invalid plugin name"},
		"..":           {errdefs.IsInvalidArgument, "invalid plugin name"},
		"":             {errdefs.IsInvalidArgument, "invalid plugin name"},
		"a\x00b":       {errdefs.IsInvalidArgument, "invalid plugin name"},
		"file":         {errdefs.IsNotFound, "plugin not found"},
		"pipe":         {errdefs.IsInvalidArgument, "not a file"},
		"bad":          {errdefs.IsInvalidArgument, "unknown protocol"},
		"odd":          {errdefs.IsInvalidArgument, "neither unix:///PATH nor tcp"},
		"rel":          {errdefs.IsInvalidArgument, "neither unix:///PATH nor tcp"},
		"secret":       {errdefs.IsInvalidArgument, "neither unix:///PATH nor tcp"},
		"text":         {errdefs.IsInvalidArgument, "text.json: invalid character"},
		"long":         {errdefs.IsInvalidArgument, "more than 1048576 bytes"},
		"gone":         {errdefs.IsUnavailable, "(hint: is the plugin running?)"},
		"ca":           {nil, "read CAFile"},
		"volume":       {errdefs.IsNotFound, "plugin volume: plugin does not implement the requested driver (NetworkDriver)"},
		"address":      {errdefs.IsNotFound, "plugin address: plugin does not implement the requested driver (NetworkDriver)"},
		"scope":        {nil, "invalid capability: expecting 'local' or 'global', got galactic"},
		"manifest":     {nil, "plugin manifest: Plugin.Activate: the answer is not understood"},
	} {
		err := r.LookUp(t.Context(), name)
		if err == nil || c.is != nil && !c.is(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v, want %q", name, err, c.text)
		}
	}
	if err := r.LookUpIPAM(t.Context(), "address"); err != nil {
		t.Error(err)
	}
	if err := r.LookUpIPAM(t.Context(), "scope"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestTLS : the files of TLSConfig are used, and without a CAFile nothing is verified,
// as in Docker.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv := httptest.NewTLSServer(answering("NetworkDriver", nil))
	t.Cleanup(srv.Close)
	other := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	ca := filepath.Join(s.specs, "ca.pem")
	write := func(path string, b []byte) {
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(ca, srv.Certificate().Raw)
	object := func(addr string, tls map[string]any) string {
		b, _ := json.Marshal(map[string]any{"Addr": addr, "TLSConfig": tls})
		return string(b)
	}
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	s.spec("verified.json", object(srv.URL, map[string]any{"CAFile": ca}))
	s.spec("blind.json", object(srv.URL, nil))
	s.spec("wrongname.json", object("https://localhost:"+port, map[string]any{"CAFile": ca}))
	s.spec("nocert.json", object(srv.URL, map[string]any{"CAFile": ca, "CertFile": ca, "KeyFile": ca}))
	s.spec("empty.json", object(srv.URL, map[string]any{"CAFile": filepath.Join(s.specs, "empty.json")}))
	r := s.registry()
	for name, text := range map[string]string{
		"verified": "", "blind": "", "wrongname": "certificate is valid for", "nocert": "read CertFile and KeyFile", "empty": "no certificate in CAFile",
	} {
		err := r.LookUp(t.Context(), name)
		if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", name, err, text)
		}
	}
}
