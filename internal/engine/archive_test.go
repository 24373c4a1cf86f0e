package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/container"
	"isle/internal/filters"
	"isle/internal/image"
	"isle/internal/volume"
)

// committing are images that also can be committed and counted.
type committing struct {
	*fakeImages
	request image.CommitRequest
	paused  func() bool
	frozen  bool
	err     error
}

func (c *committing) Resolve(ctx context.Context, ref string, _ *ocispec.Platform) (image.Image, error) {
	if ref == "sha256:abc" {
		ref = "toolbox"
	}
	return c.fakeImages.Resolve(ctx, ref, nil)
}

func (c *committing) Commit(_ context.Context, req image.CommitRequest) (string, error) {
	c.request, c.frozen = req, c.paused()
	return "sha256:new", c.err
}

func (c *committing) Changes(context.Context, string) ([]image.Change, error) {
	return []image.Change{{Path: "/x", Kind: apitypes.ChangeAdd}}, nil
}

func (c *committing) TotalSize(context.Context) (int64, error) { return 1000, nil }

func (c *committing) List(context.Context, image.ListOptions) ([]imagetypes.Summary, error) {
	return []imagetypes.Summary{{ID: "a", Size: 700, SharedSize: 200, Containers: 1}, {ID: "b", Size: 500, SharedSize: 200}}, nil
}

// withFiles is a world with real volumes and an image that has some files.
func withFiles(t *testing.T) (*world, *committing) {
	w := newWorld(t)
	svc, err := volume.Open(volume.Config{Dir: w.Engine.Config.DataDir, Store: w.store})
	if err != nil {
		t.Fatal(err)
	}
	c := &committing{fakeImages: w.images}
	c.paused = func() bool { return w.state("web").Paused }
	w.Engine.Volumes, w.Engine.Images = svc, c
	for name, content := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:\n", "etc/group": "root:x:0:\n", "data/image": "I", "tmp/f": ""} {
		p := filepath.Join(w.images.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return w, c
}

func tarOf(names ...string) io.Reader {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, n := range names {
		tw.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(n))})
		io.WriteString(tw, n)
	}
	tw.Close()
	return &b
}

func namesOf(t *testing.T, r io.Reader) (names []string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func ownerOf(fi os.FileInfo) (uid, gid uint32) {
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

func TestArchive(t *testing.T) {
	w, _ := withFiles(t)
	bind := t.TempDir()
	w.create("web", func(o *container.CreateOptions) {
		o.Host.Binds = []string{"vol:/data", bind + ":/etc/conf:ro"}
		o.Config.User = "web"
	})
	ctx := t.Context()
	if err := w.ContainerPut(ctx, "web", "/data", tarOf("new"), container.PutOptions{CopyUIDGID: true}); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(w.Engine.Config.DataDir, "volumes/vol/_data")
	fi, err := os.Stat(in + "/new")
	if err != nil {
		t.Fatalf("not in the volume: %v", err)
	}
	if uid, gid := ownerOf(fi); uid != 33 || gid != 44 {
		t.Errorf("owner %d:%d", uid, gid)
	}
	r, st, err := w.ContainerGet(ctx, "web", "/data")
	if err != nil || st.Name != "data" || !st.Mode.IsDir() {
		t.Fatalf("got %+v, %v", st, err)
	}
	if got := namesOf(t, r); !slices.Equal(got, []string{"data/", "data/image", "data/new"}) {
		t.Errorf("got %v", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if st, err := w.ContainerStat(ctx, "web", "/etc/passwd"); err != nil || st.Name != "passwd" || st.Size == 0 {
		t.Errorf("got %+v, %v", st, err)
	}
	var b bytes.Buffer
	if err := w.ContainerExport(ctx, "web", &b); err != nil {
		t.Fatal(err)
	}
	if got := namesOf(t, &b); !slices.Contains(got, "data/image") || slices.Contains(got, "data/new") {
		t.Errorf("an export is the root file system without volumes: %v", got)
	}
	w.checkArchiveErrors(ctx)
	got := slices.DeleteFunc(w.heard(), func(s string) bool { return !strings.HasPrefix(s, "container") })
	want := []string{"container create", "container extract-to-dir", "container archive-path", "container export"}
	if !slices.Equal(got, want) {
		t.Errorf("events\n got %q\nwant %q", got, want)
	}
	w.start("web") // nothing holds it
}

func (w *world) checkArchiveErrors(ctx context.Context) {
	w.t.Helper()
	const missing = "Could not find the file /none in container web"
	_, err := w.ContainerStat(ctx, "web", "/none")
	_, _, gerr := w.ContainerGet(ctx, "web", "/none")
	perr := w.ContainerPut(ctx, "web", "/none", tarOf("f"), container.PutOptions{})
	for _, err := range []error{err, gerr, perr} {
		if !errdefs.IsNotFound(err) || err.Error() != missing {
			w.t.Errorf("got %v, want %q", err, missing)
		}
	}
	if err := w.ContainerPut(ctx, "web", "/etc/conf", tarOf("f"), container.PutOptions{}); !errdefs.IsPermissionDenied(err) {
		w.t.Errorf("read-only bind: %v", err)
	}
	if err := w.ContainerPut(ctx, "web", "/etc/passwd", tarOf("f"), container.PutOptions{}); !errdefs.IsInvalidArgument(err) || err.Error() != "extraction point is not a directory" {
		w.t.Errorf("into a file: %v", err)
	}
	if err := w.ContainerPut(ctx, "web", "/tmp", strings.NewReader(strings.Repeat("x", 600)), container.PutOptions{}); !errdefs.IsInvalidArgument(err) {
		w.t.Errorf("no tar: %v", err)
	}
	if _, err := w.ContainerStat(ctx, "nobody", "/"); !errdefs.IsNotFound(err) {
		w.t.Errorf("no container: %v", err)
	}
}

func TestArchiveReadOnly(t *testing.T) {
	w, _ := withFiles(t)
	w.create("web", func(o *container.CreateOptions) {
		o.Host.ReadonlyRootfs = true
		o.Host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "vol", Target: "/data"}}
	})
	if err := w.ContainerPut(t.Context(), "web", "/tmp", tarOf("f"), container.PutOptions{}); !errdefs.IsPermissionDenied(err) || !strings.HasPrefix(err.Error(), "container rootfs is marked read-only") {
		t.Errorf("got %v", err)
	}
	if err := w.ContainerPut(t.Context(), "web", "/data", tarOf("f"), container.PutOptions{}); err != nil {
		t.Errorf("a volume is writable: %v", err)
	}
}

// A client that leaves in the middle of an archive does not keep the container
// from being started.
func TestArchiveAbandoned(t *testing.T) {
	w, _ := withFiles(t)
	if err := os.WriteFile(w.images.dir+"/large", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	w.create("web")
	r, _, err := w.ContainerGet(t.Context(), "web", "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Read(make([]byte, 10))
	r.Close()
	w.start("web")
}

func TestCommit(t *testing.T) {
	w, images := withFiles(t)
	w.create("web", func(o *container.CreateOptions) {
		o.Config.Env, o.Config.Labels = []string{"A=1", "B=2"}, map[string]string{"a": "b"}
	})
	w.start("web")
	w.heard()
	id, err := w.ContainerCommit(t.Context(), "web", container.CommitOptions{
		Repo: "me/new", Tag: "v1", Author: "x", Comment: "why", Pause: true, Changes: []string{"CMD [\"ls\"]", "ENV C=3", "LABEL k=v", "EXPOSE 80/tcp"},
		Config: &apitypes.Config{Env: []string{"A=9"}, WorkingDir: "/srv"},
	})
	if err != nil || id != "sha256:new" {
		t.Fatalf("got %s, %v", id, err)
	}
	req := images.request
	if req.Ref != "me/new:v1" || req.Author != "x" || req.Message != "why" || req.Parent.ID != "sha256:abc" || !images.frozen {
		t.Errorf("request %+v, frozen %v", req, images.frozen)
	}
	c := req.Config
	if strings.Join(c.Env, " ") != "A=9 B=2 C=3" || strings.Join(c.Cmd, " ") != "ls" || c.WorkingDir != "/srv" || c.Labels["a"] != "b" || c.Labels["k"] != "v" || len(c.ExposedPorts) != 1 {
		t.Errorf("configuration %+v", c)
	}
	if w.state("web").Paused {
		t.Error("it stayed paused")
	}
	if got := w.heard(); !slices.Equal(got, []string{"container pause", "container commit", "container unpause"}) {
		t.Errorf("events %q", got)
	}
	if in, _ := w.ContainerInspect(t.Context(), "web", false); len(in.Config.Labels) != 1 || strings.Join(in.Config.Env, " ") != "A=1 B=2" {
		t.Errorf("the container's own configuration was changed: %+v", in.Config)
	}
	if _, err := w.ContainerCommit(t.Context(), "web", container.CommitOptions{Changes: []string{"RUN x"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad change: %v", err)
	}
	images.err = errors.New("disk full")
	if _, err := w.ContainerCommit(t.Context(), "web", container.CommitOptions{Pause: true}); err == nil || w.state("web").Paused {
		t.Errorf("failed commit: %v, paused %v", err, w.state("web").Paused)
	}
	if got, err := w.ContainerChanges(t.Context(), "web"); err != nil || len(got) != 1 {
		t.Errorf("changes: %v, %v", got, err)
	}
}

func TestVolumes(t *testing.T) {
	w, _ := withFiles(t)
	ctx := t.Context()
	for _, name := range []string{"free", "used"} {
		if v, err := w.VolumeCreate(ctx, volumetypes.CreateRequest{Name: name, Labels: map[string]string{"n": name}}); err != nil || v.Options == nil {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	anonymous, err := w.VolumeCreate(ctx, volumetypes.CreateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id := w.create("web", func(o *container.CreateOptions) { o.Host.Binds = []string{"used:/data"} })
	if err := w.VolumeRemove(ctx, "used", true); !errdefs.IsConflict(err) || err.Error() != "remove used: volume is in use - ["+id+"]" {
		t.Errorf("got %v", err)
	}
	for _, tc := range []struct {
		f    filters.Args
		want []string
	}{
		{nil, []string{"free", "used", anonymous.Name}},
		{filters.Args{"dangling": {"true"}}, []string{"free", anonymous.Name}},
		{filters.Args{"dangling": {"0"}}, []string{"used"}},
		{filters.Args{"name": {"fr"}}, []string{"free"}},
		{filters.Args{"label": {"n=used"}}, []string{"used"}},
		{filters.Args{"driver": {"nfs"}}, nil},
	} {
		list, err := w.VolumeList(ctx, tc.f)
		var got []string
		for _, v := range list.Volumes {
			got = append(got, v.Name)
		}
		slices.Sort(got)
		slices.Sort(tc.want)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%v: got %v, %v, want %v", tc.f, got, err, tc.want)
		}
	}
	if _, err := w.VolumeList(ctx, filters.Args{"odd": {"x"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	w.checkPrune(ctx, anonymous.Name)
}

func (w *world) checkPrune(ctx context.Context, anonymous string) {
	w.t.Helper()
	report, err := w.VolumesPrune(ctx, nil)
	if err != nil || !slices.Equal(report.VolumesDeleted, []string{anonymous}) {
		w.t.Errorf("prune: %+v, %v", report, err)
	}
	os.WriteFile(filepath.Join(w.Engine.Config.DataDir, "volumes/free/_data/f"), []byte("12345"), 0o644)
	report, err = w.VolumesPrune(ctx, filters.Args{"all": {"1"}, "label!": {"n=used"}})
	if err != nil || !slices.Equal(report.VolumesDeleted, []string{"free"}) || report.SpaceReclaimed != 5 {
		w.t.Errorf("prune all: %+v, %v", report, err)
	}
	if err := w.VolumeRemove(ctx, "free", true); err != nil {
		w.t.Errorf("missing, with force: %v", err)
	}
	if err := w.VolumeRemove(ctx, "free", false); !errdefs.IsNotFound(err) {
		w.t.Errorf("missing: %v", err)
	}
	got := slices.DeleteFunc(w.heard(), func(s string) bool { return !strings.HasPrefix(s, "volume") })
	want := []string{"volume create", "volume create", "volume create", "volume destroy", "volume prune", "volume destroy", "volume prune"}
	if !slices.Equal(got, want) {
		w.t.Errorf("events\n got %q\nwant %q", got, want)
	}
}

func TestDiskUsage(t *testing.T) {
	w, _ := withFiles(t)
	w.create("web", func(o *container.CreateOptions) { o.Host.Binds = []string{"used:/data"} })
	w.create("other")
	w.start("web")
	w.VolumeCreate(t.Context(), volumetypes.CreateRequest{Name: "free"})
	os.WriteFile(filepath.Join(w.Engine.Config.DataDir, "volumes/free/_data/f"), []byte("12345"), 0o644)
	u, err := w.DiskUsage(t.Context(), []system.DiskUsageObject{system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject})
	if err != nil {
		t.Fatal(err)
	}
	if c := u.ContainerUsage; c.TotalCount != 2 || c.ActiveCount != 1 || c.TotalSize != 20 || c.Reclaimable != 10 {
		t.Errorf("containers: %+v", c)
	}
	if i := u.ImageUsage; i.TotalCount != 2 || i.ActiveCount != 1 || i.TotalSize != 1000 || i.Reclaimable != 300 {
		t.Errorf("images: %+v", i)
	}
	v := u.VolumeUsage
	if v.TotalCount != 2 || v.ActiveCount != 1 || v.TotalSize != 6 || v.Reclaimable != 5 || u.BuildCacheUsage == nil {
		t.Errorf("volumes: %+v", v)
	}
	for _, i := range v.Items {
		if want := map[string]int64{"free": 0, "used": 1}[i.Name]; i.UsageData.RefCount != want {
			t.Errorf("%s: %+v", i.Name, i.UsageData)
		}
	}
	if one, err := w.DiskUsage(t.Context(), []system.DiskUsageObject{system.VolumeObject}); err != nil || one.ImageUsage != nil || one.ContainerUsage != nil {
		t.Errorf("volumes only: %+v, %v", one, err)
	}
	if _, err := w.DiskUsage(t.Context(), []system.DiskUsageObject{"x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
