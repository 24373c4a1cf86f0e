package engine

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"isle/internal/container"
	"isle/internal/filters"
)

func TestMergeImage(t *testing.T) {
	img := dockerspec.DockerOCIImage{Config: dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}, Env: []string{"A=1", "B=2"}, User: "nobody",
			WorkingDir: "/w", ExposedPorts: map[string]struct{}{"80": {}, "90-91/udp": {}}, Labels: map[string]string{"l": "image", "k": "image"}},
	}}
	for _, tt := range []struct {
		name       string
		entry, cmd []string
		want       string
	}{
		{"nothing given", nil, nil, "entry|cmd"},
		{"a command", nil, []string{"x"}, "entry|x"},
		{"an entrypoint drops the command", []string{"e"}, nil, "e|"},
		{"both", []string{"e"}, []string{"x"}, "e|x"},
		{"an empty entrypoint is none", []string{""}, []string{"x"}, "|x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := mergeImage(apitypes.Config{Entrypoint: tt.entry, Cmd: tt.cmd}, img)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Entrypoint, " ") + "|" + strings.Join(c.Cmd, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	c, err := mergeImage(apitypes.Config{Env: []string{"B=3", "C=4", "A"}, Labels: map[string]string{"l": "user"}}, img)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Env, []string{"B=3", "C=4"}) || c.Labels["l"] != "user" || c.Labels["k"] != "image" || c.User != "nobody" || c.WorkingDir != "/w" || len(c.ExposedPorts) != 3 {
		t.Errorf("merged %+v", c)
	}
	if img.Config.Labels["l"] != "image" {
		t.Error("the image was changed")
	}
}

// TestCVE_2026_94603: what an image says beyond the allow-list has no effect.
func TestCVE_2026_94603(t *testing.T) {
	w := newWorld(t)
	w.images.cfg.Labels = map[string]string{"io.podman.annotations.privileged": "TRUE", "privileged": "true"}
	w.create("one")
	in, err := w.ContainerInspect(t.Context(), "one", false)
	if err != nil {
		t.Fatal(err)
	}
	if h := in.HostConfig; h.Privileged || len(h.SecurityOpt) > 0 || len(h.CapAdd) > 0 || len(h.Annotations) > 0 {
		t.Errorf("host configuration from an image: %+v", h)
	}
}

// wishing is a container on one network with wishes.
func wishing(mode string, s networktypes.EndpointSettings) func(*container.CreateOptions) {
	return func(o *container.CreateOptions) {
		o.Host.NetworkMode = apitypes.NetworkMode(mode)
		o.Networking = &networktypes.NetworkingConfig{EndpointsConfig: map[string]*networktypes.EndpointSettings{mode: &s}}
	}
}

func TestCreateRefuses(t *testing.T) {
	mac, ip := networktypes.HardwareAddr{2, 0, 0, 0, 0, 1}, &networktypes.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.9.0.2")}
	w := newWorld(t)
	w.create("taken")
	for _, tt := range []struct {
		change func(*container.CreateOptions)
		text   string
	}{
		{func(o *container.CreateOptions) { o.Name = "a/b" }, "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{func(o *container.CreateOptions) { o.Name = "taken" }, `Conflict. The container name "/taken" is already in use by container "`},
		{func(o *container.CreateOptions) { o.Config.Image = "Bad::Name" }, "invalid reference format"},
		{func(o *container.CreateOptions) { o.Config.Image = "absent" }, "No such image: absent"},
		{func(o *container.CreateOptions) { o.Config.Entrypoint = []string{""} }, "no command specified"},
		{func(o *container.CreateOptions) { o.Host.NetworkMode = "nosuch" }, "network nosuch not found"},
		{func(o *container.CreateOptions) { o.Host.NetworkMode = "container:taken"; o.Config.Hostname = "h" }, "conflicting options: hostname and the network mode"},
		{func(o *container.CreateOptions) {
			o.Host.NetworkMode = "container:taken"
			o.Host.PortBindings = networktypes.PortMap{networktypes.MustParsePort("80/tcp"): nil}
		}, "conflicting options: port publishing and the container type network mode"},
		{func(o *container.CreateOptions) {
			o.Host.NetworkMode, o.Host.Sysctls = "container:taken", map[string]string{"net.ipv4.ip_forward": "1"}
		}, "conflicting options: sysctl net.ipv4.ip_forward and the container type network mode"},
		{wishing("container:taken", networktypes.EndpointSettings{MacAddress: mac}), "conflicting options: mac-address and the network mode"},
		{wishing("container:taken", networktypes.EndpointSettings{IPAMConfig: ip}), "conflicting options: IP address and the container type network mode"},
		{wishing("container:taken", networktypes.EndpointSettings{}), "conflicting options: cannot attach both user-defined and non-user-defined network-modes"},
		{wishing("none", networktypes.EndpointSettings{MacAddress: mac}), "conflicting options: mac-address and the network mode"},
		{wishing("host", networktypes.EndpointSettings{MacAddress: mac}), "conflicting options: mac-address and the network mode"},
		{wishing("none", networktypes.EndpointSettings{IPAMConfig: ip}), "invalid config for network none: user specified IP address is supported on user defined networks only"},
		{wishing("host", networktypes.EndpointSettings{IPAMConfig: ip}), "invalid config for network host: user specified IP address is supported on user defined networks only"},
		{wishing("host", networktypes.EndpointSettings{Aliases: []string{"a"}}), "invalid config for network host: network-scoped aliases are only supported"},
		{wishing("app", networktypes.EndpointSettings{Aliases: []string{"good", "bad alias!"}}), `invalid config for network app: invalid alias "bad alias!"`},
		{wishing("app", networktypes.EndpointSettings{Aliases: []string{strings.Repeat("a", 64)}}), "invalid config for network app: invalid alias"},
		{wishing("app", networktypes.EndpointSettings{Aliases: []string{strings.Repeat("a.", 127) + "a"}}), "invalid config for network app: invalid alias"},
		{func(o *container.CreateOptions) { o.Host.Memory = 1 << 20 }, "Minimum memory limit allowed is 6MB"},
		{func(o *container.CreateOptions) { o.Host.LogConfig.Type = "syslog" }, "logger: no log driver named 'syslog' is registered"},
		{func(o *container.CreateOptions) { o.Host.AutoRemove, o.Host.RestartPolicy.Name = true, "always" }, "can't create 'AutoRemove' container with restart policy"},
		{func(o *container.CreateOptions) { o.Host.Runtime = "nosuch" }, "unknown or invalid runtime name: nosuch"},
		{func(o *container.CreateOptions) { o.Config.WorkingDir = "x" }, "the working directory 'x' is invalid, it needs to be an absolute path"},
		{func(o *container.CreateOptions) { o.Config.StopSignal = "SIGNOSUCH" }, "invalid signal: SIGNOSUCH"},
		{func(o *container.CreateOptions) { o.Host.ExtraHosts = []string{"x"} }, `bad format for add-host: "x"`},
	} {
		o := container.CreateOptions{Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{}}
		tt.change(&o)
		r, err := w.ContainerCreate(t.Context(), o)
		if err == nil || !strings.HasPrefix(err.Error(), tt.text) {
			t.Errorf("got %v (%s), want %q", err, r.ID, tt.text)
		}
	}
}

// TestNothingToPublishFrom: --publish-all without a network is no error, and said.
func TestNothingToPublishFrom(t *testing.T) {
	w := newWorld(t)
	for mode, want := range map[string]string{"none": "Published ports are discarded when using the network mode none", "app": ""} {
		o := container.CreateOptions{Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{NetworkMode: apitypes.NetworkMode(mode), PublishAllPorts: true}}
		if r, err := w.ContainerCreate(t.Context(), o); err != nil || strings.Join(r.Warnings, " ") != want {
			t.Errorf("%s: %q, %v", mode, r.Warnings, err)
		}
	}
}

// TestEndpointKeys: keys are names, ids or "default", and an inspected endpoint
// is accepted as input (Watchtower).
func TestEndpointKeys(t *testing.T) {
	w := newWorld(t)
	app, err := w.networks.Find(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	w.create("first", func(o *container.CreateOptions) { o.Host.NetworkMode = "app" })
	w.start("first")
	in, err := w.ContainerInspect(t.Context(), "first", false)
	if err != nil {
		t.Fatal(err)
	}
	was := in.NetworkSettings.Networks["app"]
	if !was.IPAddress.IsValid() || was.NetworkID != app.ID || !was.Gateway.IsValid() {
		t.Errorf("connected: %+v", was)
	}
	w.create("second", func(o *container.CreateOptions) {
		o.Host.NetworkMode = apitypes.NetworkMode(app.ID)
		o.Networking = &networktypes.NetworkingConfig{EndpointsConfig: map[string]*networktypes.EndpointSettings{app.ID: was, "default": {}}}
	})
	in, err = w.ContainerInspect(t.Context(), "second", false)
	if err != nil {
		t.Fatal(err)
	}
	nets := in.NetworkSettings.Networks
	if names := slices.Sorted(maps.Keys(nets)); !slices.Equal(names, []string{"app", "bridge"}) {
		t.Fatalf("networks %v", names)
	}
	if nets["app"].IPAddress.IsValid() || nets["app"].EndpointID != "" {
		t.Errorf("not connected yet: %+v", nets["app"])
	}
	w.create("third", func(o *container.CreateOptions) { o.Host.NetworkMode = "container:first" })
	in, err = w.ContainerInspect(t.Context(), "third", false)
	if err != nil || string(in.HostConfig.NetworkMode) != "container:"+w.names()["first"] || len(in.NetworkSettings.Networks) != 0 {
		t.Errorf("mode %s, networks %v, %v", in.HostConfig.NetworkMode, in.NetworkSettings.Networks, err)
	}
}

// TestPorts: null for what is exposed and not published, final after start.
func TestPorts(t *testing.T) {
	w := newWorld(t)
	http, dns := networktypes.MustParsePort("80/tcp"), networktypes.MustParsePort("53/udp")
	w.create("one", func(o *container.CreateOptions) {
		o.Config.ExposedPorts = networktypes.PortSet{http: {}, dns: {}}
		o.Host.PortBindings = networktypes.PortMap{http: {{}}}
	})
	ports := func() networktypes.PortMap {
		in, err := w.ContainerInspect(t.Context(), "one", false)
		if err != nil {
			t.Fatal(err)
		}
		return in.NetworkSettings.Ports
	}
	if p := ports(); len(p) != 0 || p == nil {
		t.Errorf("before start: %v", p)
	}
	w.start("one")
	p := ports()
	if b, ok := p[dns]; !ok || b != nil {
		t.Errorf("exposed: %v", p)
	}
	if b := p[http]; len(b) != 1 || b[0].HostPort != "32768" {
		t.Errorf("published: %v", p)
	}
	list, err := w.ContainerList(t.Context(), container.ListOptions{Filters: filters.Args{"publish": {"32768"}}})
	if err != nil || len(list) != 1 || len(list[0].Ports) != 2 {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestListFilters(t *testing.T) {
	w := newWorld(t)
	w.create("web", func(o *container.CreateOptions) { o.Config.Labels = map[string]string{"tier": "front"} })
	w.create("db", func(o *container.CreateOptions) { o.Host.NetworkMode = "app" })
	w.start("web")
	for _, tt := range []struct {
		all  bool
		f    filters.Args
		want string
	}{
		{false, nil, "web"},
		{true, nil, "db web"},
		{true, filters.Args{"name": {"^/we"}}, "web"},
		{true, filters.Args{"name": {"b$"}}, "db web"},
		{false, filters.Args{"status": {"created"}}, "db"},
		{true, filters.Args{"label": {"tier=front"}}, "web"},
		{true, filters.Args{"network": {"app"}}, "db"},
		{true, filters.Args{"ancestor": {"toolbox"}, "name": {"db"}}, "db"},
		{true, filters.Args{"since": {"web"}}, "db"},
		{true, filters.Args{"before": {"db"}}, "web"},
		{true, filters.Args{"health": {"none"}}, "db web"},
	} {
		list, err := w.ContainerList(t.Context(), container.ListOptions{All: tt.all, Filters: tt.f})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list {
			names = append(names, strings.TrimPrefix(s.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.f, got, tt.want)
		}
	}
	if _, err := w.ContainerList(t.Context(), container.ListOptions{Filters: filters.Args{"nosuch": {"x"}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown key: %v", err)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		s    container.State
		want string
	}{
		{container.State{Status: "created"}, "Created"},
		{container.State{Status: "running", StartedAt: ago(5 * time.Minute)}, "Up 5 minutes"},
		{container.State{Status: "running", StartedAt: ago(5 * time.Minute), Health: &apitypes.Health{Status: "healthy"}}, "Up 5 minutes (healthy)"},
		{container.State{Status: "running", StartedAt: ago(time.Hour), Health: &apitypes.Health{Status: "starting"}}, "Up About an hour (health: starting)"},
		{container.State{Status: "paused", StartedAt: ago(2 * time.Hour)}, "Up 2 hours (Paused)"},
		{container.State{Status: "exited", FinishedAt: ago(3 * time.Second)}, "Exited (0) 3 seconds ago"},
		{container.State{Status: "restarting", ExitCode: 1, FinishedAt: ago(3 * time.Second)}, "Restarting (1) 3 seconds ago"},
		{container.State{Status: "dead"}, "Dead"},
	} {
		if got := statusText(tt.s, now); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestTop(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	w.start("one")
	for args, titles := range map[string]string{
		"": "UID PID PPID C STIME TTY TIME CMD", "-ef": "UID PID PPID C STIME TTY TIME CMD",
		"aux": "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND", "-eo pid,comm": "PID COMMAND", "-o pid=ID": "ID",
	} {
		top, err := w.ContainerTop(t.Context(), "one", args)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if got := strings.Join(top.Titles, " "); got != titles || len(top.Processes) != 1 || len(top.Processes[0]) != len(top.Titles) {
			t.Errorf("%q: got %q %v", args, got, top.Processes)
		}
	}
	for _, args := range []string{"-o nosuch", "-Z", "--forest"} {
		if _, err := w.ContainerTop(t.Context(), "one", args); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestResolvConf: a name is asked for as it is, unless the user says another ndots.
func TestResolvConf(t *testing.T) {
	r := parseResolvConf([]byte("# c\nnameserver 1.1.1.1\nsearch a.example b.example\noptions edns0 ndots:5\n"))
	r.servers, r.options = []string{"127.0.0.11"}, namesFirst(withoutNdots(r.options))
	got := string(r.bytes())
	if want := "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 ndots:0\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q", got)
	}
	for _, tt := range []struct{ mode, user, config, want string }{
		{"app", "timeout:1", "", "timeout:1 ndots:0"},
		{"app", "", "timeout:2 rotate", "timeout:2 rotate ndots:0"},
		{"app", "timeout:1", "ndots:2", "timeout:1 ndots:0"},
		{"app", "", "ndots:2", "ndots:2"},
		{"app", "ndots:3 timeout:1", "", "ndots:3 timeout:1"},
		{"app", "ndots:many", "", "ndots:0"},
		{"host", "timeout:1", "", "timeout:1"},
	} {
		e := &Engine{Log: slog.New(slog.DiscardHandler)}
		e.Config.Network.DNSOptions = strings.Fields(tt.config)
		rec := container.Record{Host: &apitypes.HostConfig{NetworkMode: apitypes.NetworkMode(tt.mode), DNSOptions: strings.Fields(tt.user)}}
		if got := parseResolvConf(e.resolvConf(rec)).options; strings.Join(got, " ") != tt.want {
			t.Errorf("%+v: options %q", tt, got)
		}
	}
}

func TestLogOptions(t *testing.T) {
	conf := func(kv ...string) apitypes.HostConfig {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return apitypes.HostConfig{LogConfig: apitypes.LogConfig{Type: "json-file", Config: m}}
	}
	for _, bad := range []apitypes.HostConfig{conf("max-size", "x"), conf("max-file", "0"), conf("max-file", "3"), conf("compress", "true"), conf("nosuch", "1")} {
		if err := checkLog(apitypes.Config{}, bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad.LogConfig.Config, err)
		}
	}
	l, err := logLimits(conf("max-size", "10m", "max-file", "3", "compress", "true").LogConfig)
	if err != nil || l.MaxSize != 10<<20 || l.MaxFile != 3 || !l.Compress {
		t.Errorf("%+v %v", l, err)
	}
}
