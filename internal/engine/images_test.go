package engine

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockercontainer "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/event"
	"isle/internal/filters"
	"isle/internal/image"
)

// withImages is an engine with real images, the built-in one among them, and
// nothing else.
func withImages(t *testing.T) (*Engine, *image.Service) {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "isle-toolbox")
	if err := os.WriteFile(tool, []byte("tool"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := image.Open(image.Config{Dir: t.TempDir(), RunDir: t.TempDir(), StorageDriver: "native", Toolbox: tool, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &Engine{Images: s, Bus: &event.Bus{}, Log: slog.New(slog.DiscardHandler), byID: map[string]*entry{}, byName: map[string]string{}}, s
}

// heard are the events so far, as "action id name", ids of images as "ID".
func heard(e *Engine, id string) string {
	past, _, cancel := e.Bus.Subscribe(time.Unix(0, 1))
	defer cancel()
	var out []string
	for _, m := range past {
		out = append(out, strings.ReplaceAll(strings.TrimSpace(string(m.Action)+" "+m.Actor.ID+" "+m.Actor.Attributes["name"]), id, "ID"))
	}
	return strings.Join(out, ", ")
}

func TestImageEvents(t *testing.T) {
	e, s := withImages(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(e.ImagePull(ctx, "isle/toolbox", image.PullOptions{}))
	img, err := s.Resolve(ctx, "isle/toolbox", nil)
	must(err)
	must(e.ImageTag(ctx, "isle/toolbox", "mine:v1"))
	var b bytes.Buffer
	must(e.ImageSave(ctx, []string{"mine:v1"}, nil, &b))
	must(e.ImageLoad(ctx, &b, image.LoadOptions{}))
	_, err = e.ImageRemove(ctx, "mine:v1", image.RemoveOptions{})
	must(err)
	_, err = e.ImageRemove(ctx, "isle/toolbox", image.RemoveOptions{})
	must(err)
	want := "pull isle/toolbox:latest isle/toolbox, tag ID mine:v1, save ID ID, load ID ID, untag ID ID, untag ID ID, delete ID ID"
	if got := heard(e, img.ID); got != want {
		t.Errorf("events\n%s, want\n%s", got, want)
	}
	if err := e.ImagePull(ctx, "127.0.0.1:1/nope", image.PullOptions{}); err == nil {
		t.Error("pull from nowhere succeeded")
	}
	if got := heard(e, img.ID); got != want {
		t.Errorf("a failed pull was an event: %s", got)
	}
}

func TestImageInUse(t *testing.T) {
	e, s := withImages(t)
	ctx := t.Context()
	img, err := s.Resolve(ctx, "isle/toolbox", nil)
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("ab", 32)
	c := &entry{rec: container.Record{ID: id, ImageID: img.ID, State: container.State{Status: dockercontainer.StateExited}}}
	e.byID[id] = c

	if _, err := e.ImageRemove(ctx, "isle/toolbox", image.RemoveOptions{}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "(must force) - container abababababab is using") {
		t.Errorf("remove: %v", err)
	}
	if l, err := e.ImageList(ctx, image.ListOptions{}); err != nil || len(l) != 1 || l[0].Containers != 1 {
		t.Errorf("list: %+v %v", l, err)
	}
	all := filters.Args{"dangling": {"false"}}
	if r, err := e.ImagesPrune(ctx, all); err != nil || len(r.ImagesDeleted) != 0 {
		t.Errorf("prune: %+v %v", r, err)
	}
	c.rec.State.Status = dockercontainer.StateRunning
	if _, err := e.ImageRemove(ctx, "isle/toolbox", image.RemoveOptions{Force: true}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "cannot be forced") {
		t.Errorf("forced remove: %v", err)
	}
	delete(e.byID, id)
	if r, err := e.ImagesPrune(context.Background(), all); err != nil || len(r.ImagesDeleted) != 2 || r.SpaceReclaimed == 0 {
		t.Errorf("prune: %+v %v", r, err)
	}
	if got := heard(e, img.ID); got != "prune, delete ID ID, prune" {
		t.Errorf("events %s", got)
	}
}
