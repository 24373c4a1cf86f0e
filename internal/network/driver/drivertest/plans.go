package drivertest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// Plans checks d on the files of testdata: each has a network, its endpoints, perhaps
// a host, and what the kernel is to hold for them. With update that is written.
func Plans(t *testing.T, d network.Driver, update bool) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { golden(t, d, file, update) })
	}
}

func golden(t *testing.T, d network.Driver, file string, update bool) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, eps, host, want := parse(t, a)
	s := netspec.State{}
	if err := d.Plan(s, n, eps, host); err != nil {
		t.Fatal(err)
	}
	got := reconcile.Dump(s)
	if update {
		a.Files = append(a.Files, txtar.File{Name: "plan", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("plan is\n%s\nwant\n%s", got, want)
	}
}

// parse takes the plan out of a.
func parse(t *testing.T, a *txtar.Archive) (n network.Network, eps []network.Endpoint, host network.Host, want string) {
	host = Host
	for i, f := range a.Files {
		switch f.Name {
		case "network.json":
			read(t, f.Data, &n)
		case "host.json":
			read(t, f.Data, &host)
		case "parents.json":
			var list []network.Parent
			read(t, f.Data, &list)
			host.Parents = network.Parents(list)
		case "plan":
			want = string(f.Data)
			a.Files = a.Files[:i]
		default:
			var in struct {
				network.Endpoint
				Ports  []network.Publish
				Router bool
			}
			read(t, f.Data, &in)
			in.Publish, in.Endpoint.Router = in.Ports, in.Router
			eps = append(eps, in.Endpoint)
		}
	}
	return n, eps, host, want
}

func read(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
