package image

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	imagetypes "github.com/moby/moby/api/types/image"

	"isle/internal/filters"
	"isle/internal/ids"
)

// aged gives an image a date and labels.
func aged(t *testing.T, img v1.Image, day int, labels map[string]string) v1.Image {
	t.Helper()
	cfg := must(img.ConfigFile()).DeepCopy()
	cfg.Created = v1.Time{Time: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)}
	cfg.Config.Labels = labels
	return must(mutate.ConfigFile(img, cfg))
}

func TestListFilters(t *testing.T) {
	s := open(t, Config{})
	shared := layerOf(t, "shared=a long enough body for a block")
	load(t, s, dockerArchive(t, map[string]v1.Image{
		"old:v1":           aged(t, imageOf(t, shared, layerOf(t, "a=1")), 1, map[string]string{"k": "old"}),
		"host.example/mid": aged(t, imageOf(t, shared, layerOf(t, "b=2")), 2, nil),
		"new:v1":           aged(t, imageOf(t, layerOf(t, "c=3")), 3, map[string]string{"k": "new"}),
	}))
	lost := aged(t, imageOf(t, layerOf(t, "d=4")), 4, nil)
	load(t, s, dockerArchive(t, map[string]v1.Image{"tmp:v1": lost}))
	if err := s.Tag(t.Context(), "new:v1", "tmp:v1"); err != nil { // takes the name away
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                    "<none>,new:v1+tmp:v1,host.example/mid:latest,old:v1",
		"dangling=true":       "<none>",
		"dangling=false":      "new:v1+tmp:v1,host.example/mid:latest,old:v1",
		"label=k":             "new:v1+tmp:v1,old:v1",
		"label=k=new":         "new:v1+tmp:v1",
		"before=new:v1":       "host.example/mid:latest,old:v1",
		"since=old:v1":        "<none>,new:v1+tmp:v1,host.example/mid:latest",
		"until=2026-01-02":    "old:v1",
		"reference=new":       "new:v1",
		"reference=*:v1":      "new:v1+tmp:v1,old:v1",
		"reference=host*/mid": "host.example/mid:latest",
	} {
		f := filters.Args{}
		if k, v, ok := strings.Cut(text, "="); ok {
			f[k] = []string{v}
		}
		l, err := s.List(t.Context(), ListOptions{Filters: f})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := shown(l); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, bad := range []filters.Args{{"nope": {"x"}}, {"dangling": {"maybe"}}, {"until": {"yesterday"}}} {
		if _, err := s.List(t.Context(), ListOptions{Filters: bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := s.List(t.Context(), ListOptions{Filters: filters.Args{"before": {"nope"}}}); !errdefs.IsNotFound(err) {
		t.Errorf("before an unknown image: %v", err)
	}
	for pattern, want := range map[string]string{"new": "new", "*:v1": "new tmp old", "tmp:v1": "tmp"} {
		l, err := s.List(t.Context(), ListOptions{Filters: filters.Args{"reference": {pattern}}})
		if err != nil {
			t.Fatal(err)
		}
		var repos []string
		for _, sum := range l {
			for _, d := range sum.RepoDigests {
				repo, _, _ := strings.Cut(d, "@")
				repos = append(repos, repo)
			}
		}
		if got := strings.Join(repos, " "); got != want {
			t.Errorf("reference=%s: digests of %s, want of %s", pattern, got, want)
		}
	}
	id := resolve(t, s, "old:v1").ID
	l, err := s.List(t.Context(), ListOptions{SharedSize: true, Manifests: true, Use: Usage{id: {"c1", "c2"}}})
	if err != nil {
		t.Fatal(err)
	}
	old := l[len(l)-1]
	if old.Containers != 2 || old.SharedSize <= 0 || old.SharedSize >= old.Size || len(old.Manifests) != 1 || !old.Manifests[0].Available || old.Created != 1767225600 {
		t.Errorf("summary %s", asJSON(t, old))
	}
}

func shown(l []imagetypes.Summary) string {
	var out []string
	for _, s := range l {
		if len(s.RepoTags) == 0 {
			s.RepoTags = []string{"<none>"}
		}
		out = append(out, strings.Join(s.RepoTags, "+"))
	}
	return strings.Join(out, ",")
}

func TestInspect(t *testing.T) {
	reg, s := newRegistry(t), open(t, Config{})
	img := randomImage(t, runtime.GOARCH, 2, 1000)
	ref := reg.add(t, "app:v1", img)
	pullNow(t, s, ref)
	if err := s.Tag(t.Context(), ref, "mine"); err != nil {
		t.Fatal(err)
	}
	r, err := s.Inspect(t.Context(), "mine", InspectOptions{Manifests: true})
	if err != nil {
		t.Fatal(err)
	}
	d, _ := img.Digest()
	if r.ID != d.String() || asJSON(t, r.RepoTags) != asJSON(t, []string{ref, "mine:latest"}) ||
		asJSON(t, r.RepoDigests) != asJSON(t, []string{reg.Host + "/app@" + d.String(), "mine@" + d.String()}) ||
		len(r.RootFS.Layers) != 2 || r.Size <= 0 || r.Os != "linux" || r.Architecture != runtime.GOARCH || r.Config.Cmd[0] != "true" ||
		r.GraphDriver.Name != "overlayfs" || r.GraphDriver.Data["UpperDir"] == "" || r.Descriptor.Digest.String() != d.String() ||
		r.Metadata.LastTagTime.IsZero() || len(r.Manifests) != 1 {
		t.Errorf("inspect %s", asJSON(t, r))
	}
	if _, err := s.Inspect(t.Context(), "nope", InspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
}

func TestRemove(t *testing.T) {
	img := imageOf(t, layerOf(t, base...))
	user := ids.New()
	for name, c := range map[string]struct {
		tags []string
		ref  string // "ID" is the image's id
		opts RemoveOptions
		use  string // "", "stopped", "running"
		want string // untagged and deleted, or the error
	}{
		"last name":                {[]string{"a:v1"}, "a:v1", RemoveOptions{}, "", "untagged a:v1, deleted"},
		"one name of two":          {[]string{"a:v1", "b:v1"}, "b:v1", RemoveOptions{}, "", "untagged b:v1"},
		"one name of two, in use":  {[]string{"a:v1", "b:v1"}, "b:v1", RemoveOptions{}, "running", "untagged b:v1"},
		"id with one name":         {[]string{"a:v1"}, "ID", RemoveOptions{}, "", "untagged a:v1, deleted"},
		"id with names":            {[]string{"a:v1", "b:v1"}, "ID", RemoveOptions{}, "", "conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories"},
		"id with names, forced":    {[]string{"a:v1", "b:v1"}, "ID", RemoveOptions{Force: true}, "", "untagged a:v1, untagged b:v1, deleted"},
		"name in use":              {[]string{"a:v1"}, "a:v1", RemoveOptions{}, "stopped", `conflict: unable to remove repository reference "a:v1" (must force) - container USER is using its referenced image SHORT`},
		"name in use, forced":      {[]string{"a:v1"}, "a:v1", RemoveOptions{Force: true}, "stopped", "untagged a:v1, deleted"},
		"name of a running one":    {[]string{"a:v1"}, "a:v1", RemoveOptions{Force: true}, "running", `conflict: unable to remove repository reference "a:v1" (cannot be forced) - container USER is using its referenced image SHORT`},
		"id in use":                {[]string{"a:v1"}, "ID", RemoveOptions{}, "stopped", "conflict: unable to delete SHORT (must be forced) - image is being used by stopped container USER"},
		"id of a running one":      {[]string{"a:v1"}, "ID", RemoveOptions{Force: true}, "running", "conflict: unable to delete SHORT (cannot be forced) - image is being used by running container USER"},
		"name that does not exist": {[]string{"a:v1"}, "c", RemoveOptions{}, "", "No such image: c:latest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			id := loaded(t, s, c.tags[0], img).ID
			for _, tag := range c.tags[1:] {
				if err := s.Tag(t.Context(), c.tags[0], tag); err != nil {
					t.Fatal(err)
				}
			}
			if c.use != "" {
				c.opts.Use = Usage{id: {user}}
			}
			if c.use == "running" {
				c.opts.Running = c.opts.Use
			}
			ref := c.ref
			if ref == "ID" {
				ref = id
			}
			gone, err := s.Remove(t.Context(), ref, c.opts)
			want := strings.NewReplacer("SHORT", ids.Short(strings.TrimPrefix(id, "sha256:")), "USER", ids.Short(user)).Replace(c.want)
			if err != nil {
				if !strings.HasPrefix(err.Error(), want) || strings.HasPrefix(want, "conflict") && !errdefs.IsConflict(err) {
					t.Errorf("error %v, want %s", err, want)
				}
				resolve(t, s, id)
				return
			}
			var did []string
			for _, g := range gone {
				if g.Untagged != "" {
					did = append(did, "untagged "+g.Untagged)
				}
				if g.Deleted != "" {
					did = append(did, "deleted")
				}
			}
			if got := strings.Join(did, ", "); got != want {
				t.Errorf("did %s, want %s", got, want)
			}
			if slices.Contains(did, "deleted") {
				wantNothingLeft(t, s)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	s := open(t, Config{})
	keep := loaded(t, s, "keep:v1", aged(t, imageOf(t, layerOf(t, "a=1")), 1, nil))
	loaded(t, s, "labelled:v1", aged(t, imageOf(t, layerOf(t, "l=1")), 1, map[string]string{"k": "v"}))
	lost := loaded(t, s, "tmp:v1", aged(t, imageOf(t, layerOf(t, "b="+strings.Repeat("x", 10000))), 1, nil))
	if err := s.Tag(t.Context(), "keep:v1", "tmp:v1"); err != nil {
		t.Fatal(err)
	}
	prune := func(f filters.Args, use Usage) imagetypes.PruneReport {
		t.Helper()
		r, err := s.Prune(t.Context(), f, use)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := prune(nil, Usage{lost.ID: {"c"}}); len(r.ImagesDeleted) != 0 {
		t.Errorf("pruned one in use: %v", r)
	}
	if r := prune(filters.Args{"until": {"2025-01-01"}}, nil); len(r.ImagesDeleted) != 0 {
		t.Errorf("pruned a younger one: %v", r)
	}
	if r := prune(nil, nil); asJSON(t, r.ImagesDeleted) != asJSON(t, []imagetypes.DeleteResponse{{Deleted: lost.ID}}) || r.SpaceReclaimed < 10000 {
		t.Errorf("pruned %s", asJSON(t, r))
	}
	resolve(t, s, "keep:v1")
	if r := prune(filters.Args{"dangling": {"false"}, "label!": {"k=v"}}, Usage{keep.ID: {"c"}}); len(r.ImagesDeleted) != 0 {
		t.Errorf("pruned %s", asJSON(t, r))
	}
	if r := prune(filters.Args{"dangling": {"false"}}, nil); len(r.ImagesDeleted) != 5 {
		t.Errorf("pruned %s", asJSON(t, r))
	}
	wantNothingLeft(t, s)
	if _, err := s.Prune(t.Context(), filters.Args{"reference": {"x"}}, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestTag(t *testing.T) {
	s := open(t, Config{})
	img := loaded(t, s, "a:v1", imageOf(t, layerOf(t, base...)))
	if err := s.Tag(t.Context(), img.ID[:20], "host.example:5000/x/y"); err != nil {
		t.Fatal(err)
	}
	if got := resolve(t, s, "host.example:5000/x/y:latest"); got.ID != img.ID {
		t.Errorf("got %s", got.ID)
	}
	for dst, is := range map[string]func(error) bool{"Bad": errdefs.IsInvalidArgument, "x@" + img.ID: errdefs.IsInvalidArgument} {
		if err := s.Tag(t.Context(), "a:v1", dst); !is(err) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	if err := s.Tag(t.Context(), "nope", "b"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown image: %v", err)
	}
}

// What a crash in the middle of an operation left is gone after the next start.
func TestSweep(t *testing.T) {
	s := open(t, Config{})
	ctx, _, err := s.leased(s.context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.putBytes(ctx, "text/plain", []byte("half an image"), nil); err != nil {
		t.Fatal(err)
	}
	if l := leftovers(t, s); len(l) != 3 {
		t.Fatalf("a lease, a blob and its record: %v", l)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Dir: s.cfg.Dir})
	wantNothingLeft(t, again)
	if _, err := Open(again.cfg); err == nil {
		t.Error("a second isled opened the same store")
	}
}

func TestErrorsHaveContext(t *testing.T) {
	s := open(t, Config{})
	id := ids.New()
	_, e1 := s.RootfsMounts(t.Context(), id)
	_, _, e2 := s.RootfsUsage(t.Context(), id)
	_, e3 := s.Changes(t.Context(), id)
	for _, err := range []error{e1, e2, e3} {
		if !errdefs.IsNotFound(err) || !strings.Contains(fmt.Sprint(err), ids.Short(id)) {
			t.Errorf("error: %v", err)
		}
	}
	for _, bad := range []string{"", "..", "../../etc", "x"} {
		if err := errors.Join(s.PrepareRootfs(t.Context(), bad, Image{}), s.RemoveRootfs(t.Context(), bad)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("container id %q: %v", bad, err)
		}
	}
}
