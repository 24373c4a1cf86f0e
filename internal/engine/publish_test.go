package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/api"
	"isle/internal/container"
	"isle/internal/network"
	"isle/internal/store"
)

func publishing(bindings ...string) func(*container.CreateOptions) {
	return func(o *container.CreateOptions) {
		o.Host.PortBindings = networktypes.PortMap{}
		for _, b := range bindings {
			host, inside, _ := strings.Cut(b, ":")
			p := networktypes.MustParsePort(inside)
			o.Host.PortBindings[p] = append(o.Host.PortBindings[p], networktypes.PortBinding{HostPort: host})
		}
	}
}

// kept is what the container's configuration says of ports, and what "port" shows.
func (w *world) kept(ref string) string {
	w.t.Helper()
	in, err := w.ContainerInspect(w.t.Context(), ref, false)
	if err != nil {
		w.t.Fatal(err)
	}
	var parts []string
	for p, bs := range in.HostConfig.PortBindings {
		for _, b := range bs {
			parts = append(parts, b.HostPort+":"+fmt.Sprint(p.Num()))
		}
	}
	slices.Sort(parts)
	shown := 0
	for _, bs := range in.NetworkSettings.Ports {
		shown += len(bs)
	}
	return fmt.Sprintf("%s|%s|%d", strings.Join(parts, " "), in.HostConfig.Annotations[AnnotationPublish], shown)
}

func (w *world) publish(ref string, ports ...string) (api.PortsResponse, error) {
	return w.ContainerPublish(w.t.Context(), ref, api.PublishRequest{Ports: ports})
}

func (w *world) unpublish(ref string, ports ...string) error {
	_, err := w.ContainerUnpublish(w.t.Context(), ref, api.UnpublishRequest{Ports: ports})
	return err
}

// TestPublish: a container that runs and one that does not come to the same
// configuration, which a new start and a container made from it are given.
func TestPublish(t *testing.T) {
	for _, running := range []bool{true, false} {
		w := newWorld(t)
		w.create("web", publishing("8080:80"))
		if running {
			w.start("web")
		}
		got, err := w.publish("web", "8443:443", "if=eth0:81:81", "90:90;from=10.0.0.0/8")
		if err != nil || len(got.Added) != 3 || got.AtNextStart == running {
			t.Fatalf("%+v, %v", got, err)
		}
		is := w.kept("web")
		for _, want := range []string{"8080:80 8443:443|", "if=eth0:81:81/tcp", "90:90/tcp;from=10.0.0.0/8"} {
			if !strings.Contains(is, want) {
				t.Errorf("running %t: %s, want %s", running, is, want)
			}
		}
		if running {
			w.stopNow("web")
		}
		w.start("web")
		if is := w.kept("web"); !strings.HasSuffix(is, "|4") {
			t.Errorf("running %t: after a start: %s", running, is)
		}
		if !running {
			w.stopNow("web")
		}
		if err := w.unpublish("web", "8080", "if=eth0:81", "90"); err != nil {
			t.Fatal(err)
		}
		if is := w.kept("web"); !strings.HasPrefix(is, "8443:443||") {
			t.Errorf("running %t: %s", running, is)
		}
		if _, err := w.publish("web", "8443:444"); !running && !errdefs.IsConflict(err) {
			t.Errorf("one host port twice: %v", err)
		}
		if err := w.unpublish("web", "8080"); !errdefs.IsNotFound(err) {
			t.Errorf("running %t: what is not published: %v", running, err)
		}
	}
}

// TestPortWarnings: who makes a container with ports is told what keeps them from
// being reached.
func TestPortWarnings(t *testing.T) {
	w := newWorld(t)
	for ref, c := range map[string]struct {
		with []func(*container.CreateOptions)
		want string
	}{
		"plain":  {[]func(*container.CreateOptions){in("app")}, "[]"},
		"ports":  {[]func(*container.CreateOptions){in("app"), publishing("80:80")}, "[ports on app]"},
		"hostly": {[]func(*container.CreateOptions){in("host"), publishing("80:80")}, "[Published ports are discarded when using host network mode]"},
	} {
		o := container.CreateOptions{Name: ref, Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{}}
		for _, f := range c.with {
			f(&o)
		}
		got, err := w.ContainerCreate(t.Context(), o)
		if err != nil || fmt.Sprint(got.Warnings) != c.want {
			t.Errorf("%s: %q, %v; want %s", ref, got.Warnings, err, c.want)
		}
	}
}

// TestMadeAnew: who makes a container anew from what inspect says of it, as
// Watchtower does, has the ports that were published while it ran.
func TestMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.create("web", publishing("8080:80"))
	w.start("web")
	if _, err := w.publish("web", "8443:443", "if=eth0:81:81"); err != nil {
		t.Fatal(err)
	}
	old, err := w.ContainerInspect(t.Context(), "web", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	w.create("web", func(o *container.CreateOptions) { o.Host, o.Config.Hostname = old.HostConfig, old.Config.Hostname })
	w.start("web")
	if is := w.kept("web"); is != "8080:80 8443:443|if=eth0:81:81/tcp|3" {
		t.Error(is)
	}
}

// TestPublishAll: one port of --publish-all that is taken back stays away.
func TestPublishAll(t *testing.T) {
	w := newWorld(t)
	w.create("web", func(o *container.CreateOptions) {
		o.Config.ExposedPorts = networktypes.PortSet{networktypes.MustParsePort("80/tcp"): {}, networktypes.MustParsePort("81/udp"): {}}
		o.Host.PublishAllPorts = true
	})
	w.start("web")
	if _, err := w.publish("web", "9000:90"); err != nil {
		t.Fatal(err)
	}
	if in, _ := w.ContainerInspect(t.Context(), "web", false); !in.HostConfig.PublishAllPorts || w.kept("web") != "9000:90||3" {
		t.Errorf("one more, and all is not all any more: %s", w.kept("web"))
	}
	if err := w.unpublish("web", "32768/tcp"); err != nil {
		t.Fatal(err)
	}
	if in, _ := w.ContainerInspect(t.Context(), "web", false); in.HostConfig.PublishAllPorts || w.kept("web") != "9000:90 :81||2" {
		t.Errorf("%s, all: %t", w.kept("web"), in.HostConfig.PublishAllPorts)
	}
}

// TestReplaceMovesTheRecords: the port is in the configuration of one container.
func TestReplaceMovesTheRecords(t *testing.T) {
	w := newWorld(t)
	w.create("blue", publishing("8080:80", "8081:81"))
	w.create("green")
	w.start("blue")
	if _, err := w.ContainerPublish(t.Context(), "green", api.PublishRequest{Ports: []string{"8080:80"}, Replace: true}); !errdefs.IsConflict(err) {
		t.Errorf("moved to a container that does not run: %v", err)
	}
	w.start("green")
	got, err := w.ContainerPublish(t.Context(), "green", api.PublishRequest{Ports: []string{"8080:80"}, Replace: true})
	if err != nil || len(got.Added) != 1 || len(got.Removed) != 1 || got.Removed[0].Container != "blue" {
		t.Fatalf("%+v, %v", got, err)
	}
	if blue, green := w.kept("blue"), w.kept("green"); blue != "8081:81||1" || green != "8080:80||1" {
		t.Errorf("blue %s, green %s", blue, green)
	}
}

// TestPublishCannotBeRecorded: then the ports are as they were.
func TestPublishCannotBeRecorded(t *testing.T) {
	w := newWorld(t)
	id := w.create("web", publishing("8080:80"))
	w.start("web")
	w.store.fail = errors.New("the disk is full")
	_, err := w.publish("web", "9000:90")
	w.store.fail = nil
	if err == nil || w.kept("web") != "8080:80||1" || len(w.networks.ports[id]) != 1 {
		t.Errorf("%v, %s; in the namespace: %v", err, w.kept("web"), w.networks.ports[id])
	}
}

// TestPublishRecordLost: isled died between the change and its record.
func TestPublishRecordLost(t *testing.T) {
	w := newWorld(t)
	id := w.create("web", publishing("8080:80"))
	w.start("web")
	w.networks.ports[id] = append(w.networks.ports[id], w.networks.ports[id][0])
	w.networks.ports[id][1].HostPort, w.networks.ports[id][1].ContainerPort = 9000, 90
	w.stop()
	w.boot()
	if is := w.kept("web"); is != "8080:80 9000:90||2" {
		t.Errorf("%s", is)
	}
}

// TestUpdatePorts: PortBindings of the update endpoint are all ports there shall
// be; without them they stay; the annotation's stay anyhow.
func TestUpdatePorts(t *testing.T) {
	for _, running := range []bool{true, false} {
		w := newWorld(t)
		w.create("web", publishing("8080:80"), func(o *container.CreateOptions) {
			o.Host.Annotations = map[string]string{AnnotationPublish: "if=eth0:81:81/tcp"}
		})
		if running {
			w.start("web")
		}
		update := func(pm networktypes.PortMap) error {
			_, err := w.ContainerUpdate(t.Context(), "web", container.UpdateOptions{PortBindings: pm})
			return err
		}
		one := networktypes.PortMap{networktypes.MustParsePort("443/tcp"): {{HostPort: "8443"}}}
		for _, c := range []struct {
			pm   networktypes.PortMap
			want string
		}{{nil, "8080:80|if=eth0:81:81/tcp|"}, {one, "8443:443|if=eth0:81:81/tcp|"}, {networktypes.PortMap{}, "|if=eth0:81:81/tcp|"}} {
			if err := update(c.pm); err != nil || !strings.HasPrefix(w.kept("web"), c.want) {
				t.Errorf("running %t: %v: %v, %s; want %s", running, c.pm, err, w.kept("web"), c.want)
			}
		}
		for _, bad := range []networktypes.PortMap{
			{networktypes.MustParsePort("80/tcp"): {{HostPort: "x"}}}, {networktypes.MustParsePort("80/icmp"): {{HostPort: "80"}}},
		} {
			if err := update(bad); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v: %v", bad, err)
			}
		}
		if running {
			w.networks.portsErr = errdefs.ErrConflict
			if err := update(one); !errdefs.IsConflict(err) || !strings.HasPrefix(w.kept("web"), "|if=eth0") {
				t.Errorf("a conflict: %v, %s", err, w.kept("web"))
			}
			w.networks.portsErr = nil
		}
	}
	w := newWorld(t)
	w.create("hh", in("host"))
	_, err := w.ContainerUpdate(t.Context(), "hh", container.UpdateOptions{PortBindings: networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{}}}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("on the host's network: %v", err)
	}
}

// TestPublishNowhere: why not, in words.
func TestPublishNowhere(t *testing.T) {
	w := newWorld(t)
	w.create("hh", in("host"))
	w.create("nn", in("none"))
	w.create("cc", in("container:nn"))
	w.create("pp", in("ns:/proc/self/ns/net"))
	for ref, text := range map[string]string{"hh": "host's network", "nn": "on no network", "cc": "shares the network of container", "pp": "not Isle's"} {
		if _, err := w.publish(ref, "8080:80"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := w.publish("nobody", "8080:80"); !errdefs.IsNotFound(err) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := w.publish("hh"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no port: %v", err)
	}
	for _, bad := range []string{"isle.publish", "if=:80:80", "80:80;from=x"} {
		opts := container.CreateOptions{Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{Annotations: map[string]string{AnnotationPublish: bad}}}
		if _, err := w.ContainerCreate(t.Context(), opts); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), AnnotationPublish) {
			t.Errorf("annotation %q: %v", bad, err)
		}
	}
}

// TestConnectFromNone: a container that began without a network gets one live.
func TestConnectFromNone(t *testing.T) {
	w := newWorld(t)
	w.create("nn", in("none"))
	w.start("nn")
	if err := w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{Container: "nn"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.publish("nn", "8080:80"); err != nil {
		t.Errorf("it is on a network now: %v", err)
	}
	w.create("hh", in("host"))
	w.start("hh")
	if err := w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{Container: "hh"}); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "host's network") {
		t.Errorf("out of the host's network: %v", err)
	}
}

// between does something after the ports of a namespace were changed and before
// that is recorded.
type between struct {
	*fakeNetworks
	do func()
}

func (n between) SetPorts(ctx context.Context, id string, want network.PortRequest) (network.Ports, error) {
	if ctx.Err() != nil {
		return network.Ports{}, ctx.Err()
	}
	out, err := n.fakeNetworks.SetPorts(ctx, id, want)
	n.do()
	return out, err
}

func (n between) Replace(ctx context.Context, id string, want network.PortRequest) (network.Ports, error) {
	out, err := n.fakeNetworks.Replace(ctx, id, want)
	n.do()
	return out, err
}

// TestUpdateMeetsReplace: a port that is taken over while an update of its
// container is not recorded yet is one container's, also after a new start.
func TestUpdateMeetsReplace(t *testing.T) {
	w := newWorld(t)
	w.create("blue", publishing("8080:80"))
	w.create("green")
	w.start("blue")
	w.start("green")
	w.Networks = between{w.networks, func() {
		w.Networks = w.networks
		if _, err := w.ContainerPublish(t.Context(), "green", api.PublishRequest{Ports: []string{"8080:80"}, Replace: true}); err != nil {
			t.Error(err)
		}
	}}
	both := networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostPort: "8080"}}, networktypes.MustParsePort("81/tcp"): {{HostPort: "8081"}}}
	if _, err := w.ContainerUpdate(t.Context(), "blue", container.UpdateOptions{PortBindings: both}); err != nil {
		t.Fatal(err)
	}
	if blue, green := w.kept("blue"), w.kept("green"); blue != "8081:81||1" || green != "8080:80||1" {
		t.Errorf("blue %s, green %s", blue, green)
	}
}

// once is a disk that takes one write and no more.
type once struct {
	*memory
	full bool
}

func (s *once) Update(ctx context.Context, fn func(store.Tx) error) error {
	if s.full {
		return errors.New("the disk is full")
	}
	s.full = true
	return s.memory.Update(ctx, fn)
}

// TestUpdateIsOne: policy and ports of an update are recorded together.
func TestUpdateIsOne(t *testing.T) {
	w := newWorld(t)
	w.create("web", publishing("8080:80"))
	w.start("web")
	w.Store = &once{memory: w.store}
	o := container.UpdateOptions{PortBindings: networktypes.PortMap{networktypes.MustParsePort("90/tcp"): {{HostPort: "9000"}}}}
	o.RestartPolicy.Name = apitypes.RestartPolicyAlways
	_, err := w.ContainerUpdate(t.Context(), "web", o)
	w.Store = w.store
	if in, _ := w.ContainerInspect(t.Context(), "web", false); err != nil || !in.HostConfig.RestartPolicy.IsAlways() || w.kept("web") != "9000:90||1" {
		t.Errorf("%v, restarts %s, %s", err, in.HostConfig.RestartPolicy.Name, w.kept("web"))
	}
}

// TestUpdateTwice: a container that does not run is not given one port twice.
func TestUpdateTwice(t *testing.T) {
	w := newWorld(t)
	w.create("web", publishing("8080:80"))
	twice := networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostPort: "9000"}}, networktypes.MustParsePort("81/tcp"): {{HostPort: "9000"}}}
	if _, err := w.ContainerUpdate(t.Context(), "web", container.UpdateOptions{PortBindings: twice}); !errdefs.IsConflict(err) || w.kept("web") != "8080:80||0" {
		t.Errorf("%v, %s", err, w.kept("web"))
	}
}

// TestUpdateIsLeftAlone: a client that goes away in the middle does not leave
// ports that no record has.
func TestUpdateIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	id := w.create("web", publishing("8080:80"))
	w.start("web")
	ctx, leave := context.WithCancel(t.Context())
	w.Networks = between{w.networks, func() { leave(); w.store.fail = errors.New("the disk is full") }}
	_, err := w.ContainerUpdate(ctx, "web", container.UpdateOptions{PortBindings: networktypes.PortMap{networktypes.MustParsePort("90/tcp"): {{HostPort: "9000"}}}})
	w.store.fail = nil
	if have := w.networks.ports[id]; err == nil || w.kept("web") != "8080:80||1" || len(have) != 1 || have[0].HostPort != 8080 {
		t.Errorf("%v, %s; in the namespace: %v", err, w.kept("web"), have)
	}
}

// TestReplaceMeetsTheEnd: who loses a port may end in the same moment. The port
// is the other's all the same, and is not in its own record any more.
func TestReplaceMeetsTheEnd(t *testing.T) {
	w := newWorld(t)
	w.create("blue", publishing("8080:80", "9000:90", ":82"))
	w.create("green")
	w.start("blue")
	w.start("green")
	w.Networks = between{w.networks, func() { w.stopNow("blue") }}
	if _, err := w.ContainerPublish(t.Context(), "green", api.PublishRequest{Ports: []string{"8080:80"}, Replace: true}); err != nil {
		t.Fatal(err)
	}
	if blue, green := w.kept("blue"), w.kept("green"); blue != "9000:90 :82||0" || green != "8080:80||1" {
		t.Errorf("blue %s, green %s", blue, green)
	}
}
