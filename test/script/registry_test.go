package script

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// registry [ARCHIVE] serves a registry on 127.0.0.1:5000 for the rest of the
// script. It has test/busybox:latest, a debian-like image with a shell; with
// ARCHIVE the image is also written there as a docker-archive.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:5000")
	ts.Check(err)
	srv := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go srv.Serve(l)
	ts.Defer(func() { srv.Close() })
	img, err := busybox()
	ts.Check(err)
	ref, err := name.ParseReference("127.0.0.1:5000/test/busybox:latest", name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, img))
	if len(args) == 1 {
		tag, err := name.NewTag("archived/busybox:1")
		ts.Check(err)
		ts.Check(tarball.WriteToFile(ts.MkAbs(args[0]), tag, img))
	}
}

// busybox is an image of Debian's static busybox.
func busybox() (v1.Image, error) {
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("install busybox-static: %w", err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	put := func(h tar.Header, data []byte) error {
		h.Size = int64(len(data))
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	for _, d := range []string{"bin/", "etc/", "proc/", "sys/", "dev/", "root/", "data/"} {
		if err := put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil); err != nil {
			return nil, err
		}
	}
	if err := put(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil); err != nil {
		return nil, err
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n", "etc/group": "root:x:0:\ndaemon:x:1:\n",
		"etc/os-release": "ID=debian-like\n", "data/seed": "from the image\n",
	}
	for n, s := range files {
		if err := put(tar.Header{Name: n, Mode: 0o644}, []byte(s)); err != nil {
			return nil, err
		}
	}
	if err := put(tar.Header{Name: "bin/busybox", Mode: 0o755}, bin); err != nil {
		return nil, err
	}
	for _, a := range []string{"sh", "cat", "ls", "echo", "sleep", "id", "ps", "mount", "touch", "env", "stty", "dd", "hostname", "true", "false", "wc", "grep", "mkdir", "chown", "nslookup", "wget", "stat", "tty", "kill", "test", "head"} {
		if err := put(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "amd64"
	cf.Config.Cmd = []string{"sh"}
	cf.Config.Env = []string{"PATH=/bin", "FROM_IMAGE=yes"}
	return mutate.ConfigFile(img, cf)
}
