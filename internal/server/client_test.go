package server_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"isle/internal/server"
	"isle/internal/server/servertest"
)

// The API through Docker's own Go client.

func newClient(t *testing.T, h *host, opts ...client.Opt) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Opt{client.WithHost("unix://" + h.sock)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestClientRun(t *testing.T) {
	h := serve(t, fake())
	c := newClient(t, h)
	ctx := t.Context()
	made := must[client.ContainerCreateResult](t)(c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: "toolbox", Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true},
		Name:   "web",
	}))
	att := must[client.ContainerAttachResult](t)(c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true}))
	defer att.Close()
	wait := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	must[client.ContainerStartResult](t)(c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}))
	_, _ = io.WriteString(att.Conn, "said by the client")
	if err := att.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, att.Reader); err != nil || out.String() != "said by the client" {
		t.Errorf("%q %v", out.String(), err)
	}
	select {
	case res := <-wait.Result:
		if res.StatusCode != 0 {
			t.Error(res)
		}
	case err := <-wait.Error:
		t.Error(err)
	case <-time.After(20 * time.Second):
		t.Error("wait goes on")
	}
	in := must[client.ContainerInspectResult](t)(c.ContainerInspect(ctx, "web", client.ContainerInspectOptions{}))
	if in.Container.State.Status != container.StateExited {
		t.Error(in.Container.State)
	}
	logs := must[client.ContainerLogsResult](t)(c.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true}))
	defer logs.Close()
	out.Reset()
	if _, err := stdcopy.StdCopy(&out, io.Discard, logs); err != nil || out.String() != "said by the client" {
		t.Errorf("%q %v", out.String(), err)
	}
}

func TestClientErrors(t *testing.T) {
	h := serve(t, fake())
	c := newClient(t, h)
	ctx := t.Context()
	_, err := c.ContainerInspect(ctx, "none", client.ContainerInspectOptions{})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such container: none") {
		t.Error(err)
	}
	if _, err := c.VolumeRemove(ctx, "used", client.VolumeRemoveOptions{}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	if _, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
	if _, err := c.ImageSearch(ctx, "x", client.ImageSearchOptions{}); !errdefs.IsNotImplemented(err) {
		t.Error(err)
	}
	old := newClient(t, h, client.WithAPIVersion("1.99"))
	if _, err := old.Info(ctx, client.InfoOptions{}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "Maximum supported API version is 1.52") {
		t.Error(err)
	}
}

func TestClientLists(t *testing.T) {
	h := serve(t, fake())
	c := newClient(t, h)
	ctx := t.Context()
	p := must[client.PingResult](t)(c.Ping(ctx, client.PingOptions{}))
	if p.APIVersion != "1.52" || p.OSType != "linux" || p.BuilderVersion != "1" || p.SwarmStatus == nil || p.SwarmStatus.NodeState != "inactive" {
		t.Errorf("%+v", p)
	}
	h.running("x", "sleep", "")
	if l := must[client.ContainerListResult](t)(c.ContainerList(ctx, client.ContainerListOptions{})); len(l.Items) != 1 || l.Items[0].Names[0] != "/x" {
		t.Error(l)
	}
	if l := must[client.ImageListResult](t)(c.ImageList(ctx, client.ImageListOptions{})); len(l.Items) != 1 || l.Items[0].ID != servertest.ImageID {
		t.Error(l)
	}
	if l := must[client.NetworkListResult](t)(c.NetworkList(ctx, client.NetworkListOptions{})); len(l.Items) != 1 || l.Items[0].Name != "bridge" {
		t.Error(l)
	}
	must[client.VolumeListResult](t)(c.VolumeList(ctx, client.VolumeListOptions{}))
	must[client.PluginListResult](t)(c.PluginList(ctx, client.PluginListOptions{}))
	if df := must[client.DiskUsageResult](t)(c.DiskUsage(ctx, client.DiskUsageOptions{Images: true, Verbose: true})); df.Images.TotalSize != 7 || len(df.Images.Items) != 1 {
		t.Error(df)
	}
	pull := must[client.ImagePullResponse](t)(c.ImagePull(ctx, "registry.test/broken:1", client.ImagePullOptions{}))
	if err := pull.Wait(ctx); err == nil || !strings.Contains(err.Error(), "unexpected digest") {
		t.Error(err)
	}
	h.kill("x")
}

func TestClientEvents(t *testing.T) {
	h := serve(t, fake())
	c := newClient(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ev := c.Events(ctx, client.EventsListOptions{Since: "1", Filters: client.Filters{}.Add("event", "start")})
	h.running("x", "sleep", "")
	select {
	case m := <-ev.Messages:
		if m.Action != "start" || m.Actor.Attributes["name"] != "x" {
			t.Error(m)
		}
	case err := <-ev.Err:
		t.Error(err)
	case <-time.After(20 * time.Second):
		t.Error("no event")
	}
	h.kill("x")
}

func TestClientCopy(t *testing.T) {
	b := fake()
	h := serve(t, b)
	c := newClient(t, h)
	h.create("x", "sleep", "")
	res := must[client.CopyFromContainerResult](t)(c.CopyFromContainer(t.Context(), "x", client.CopyFromContainerOptions{SourcePath: "/a/f"}))
	if all, err := io.ReadAll(res.Content); err != nil || !bytes.Contains(all, []byte(servertest.File)) || res.Stat.Name != "f" {
		t.Error(res.Stat, err)
	}
	res.Content.Close()
	must[client.CopyToContainerResult](t)(c.CopyToContainer(t.Context(), "x", client.CopyToContainerOptions{DestinationPath: "/a", Content: bytes.NewReader(servertest.Tar("f", "text"))}))
	if p := b.Last.(servertest.Put); p.Path != "/a" || p.Bytes == 0 {
		t.Error(p)
	}
}

// Two clients of a kept-alive transport do not disturb each other.
func TestClientManyAtOnce(t *testing.T) {
	h := serve(t, fake())
	c := newClient(t, h)
	done := make(chan error, 32)
	for range cap(done) {
		go func() {
			for range 10 {
				if _, err := c.Info(context.Background(), client.InfoOptions{}); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Half-close works over TCP as well, and there is nothing left of a client that
// went away.
func TestClientTCP(t *testing.T) {
	h := serve(t, fake()) // counts goroutines
	b := fake()
	s := server.New(server.Config{Backend: b})
	ls, err := s.Listen([]string{"tcp://127.0.0.1:0"}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ls) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c := newClient(t, h, client.WithHost("tcp://"+ls[0].Addr().String()))
	made := must[client.ContainerCreateResult](t)(c.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: "toolbox", Cmd: []string{"cat"}, OpenStdin: true}}))
	att := must[client.ContainerAttachResult](t)(c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true}))
	defer att.Close()
	must[client.ContainerStartResult](t)(c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}))
	_, _ = io.WriteString(att.Conn, "over TCP")
	_ = att.CloseWrite()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, att.Reader); err != nil || out.String() != "over TCP" {
		t.Errorf("%q %v", out.String(), err)
	}
}
