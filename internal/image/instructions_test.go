package image

import (
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

func TestApplyChanges(t *testing.T) {
	for line, want := range map[string]string{
		`CMD ["a","b c"]`:                    `{"Cmd":["a","b c"]}`,
		`CMD echo $HOME`:                     `{"Cmd":["/bin/sh","-c","echo $HOME"]}`,
		`ENTRYPOINT ["x"]`:                   `{"Entrypoint":["x"]}`,
		`ENV PATH /bin:/x y`:                 `{"Env":["OLD=1","PATH=/bin:/x y"]}`,
		`env OLD=2 B="q r" C=\ z`:            `{"Env":["OLD=2","B=q r","C= z"]}`,
		`EXPOSE 80 90-91/udp`:                `{"ExposedPorts":{"80/tcp":{},"90/udp":{},"91/udp":{}}}`,
		`LABEL a=b "c d"="e f"`:              `{"Labels":{"a":"b","c d":"e f"}}`,
		`USER 1:2`:                           `{"User":"1:2"}`,
		`VOLUME /a /b`:                       `{"Volumes":{"/a":{},"/b":{}}}`,
		`VOLUME ["/c d"]`:                    `{"Volumes":{"/c d":{}}}`,
		`WORKDIR /x`:                         `{"WorkingDir":"/x"}`,
		`WORKDIR sub`:                        `{"WorkingDir":"/old/sub"}`,
		`STOPSIGNAL SIGUSR1`:                 `{"StopSignal":"SIGUSR1"}`,
		`ONBUILD RUN x`:                      `{"OnBuild":["RUN x"]}`,
		`SHELL ["/bin/bash","-c"]`:           `{"Shell":["/bin/bash","-c"]}`,
		`HEALTHCHECK NONE`:                   `{"Healthcheck":{"Test":["NONE"]}}`,
		`HEALTHCHECK --interval=5s CMD curl`: `{"Healthcheck":{"Test":["CMD-SHELL","curl"],"Interval":5000000000}}`,
		`HEALTHCHECK --retries=2 CMD ["x"]`:  `{"Healthcheck":{"Test":["CMD","x"],"Retries":2}}`,
	} {
		before := container.Config{Env: []string{"OLD=1"}, WorkingDir: "/old"}
		c := before
		if err := ApplyChanges(&c, []string{line}); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if got := changed(t, before, c); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
		if before.Env[0] != "OLD=1" || len(before.Env) != 1 {
			t.Errorf("%s changed the original", line)
		}
	}
	for _, line := range []string{"RUN x", "", "CMD", "ENV", "ENV x", "LABEL a=b c", "EXPOSE http", "EXPOSE", "USER", `ENV A="open`, "HEALTHCHECK maybe", "HEALTHCHECK --interval=x CMD y", "SHELL sh", "VOLUME"} {
		if err := ApplyChanges(&container.Config{}, []string{line}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func asMap(t *testing.T, v any) map[string]any {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal([]byte(asJSON(t, v)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// changed is what is different in after, as JSON.
func changed(t *testing.T, before, after container.Config) string {
	t.Helper()
	a, b := asMap(t, before), asMap(t, after)
	for k := range a {
		if asJSON(t, a[k]) == asJSON(t, b[k]) {
			delete(b, k)
		}
	}
	s := asJSON(t, b)
	if after.Healthcheck != nil { // in the order of its fields
		s = `{"Healthcheck":` + asJSON(t, after.Healthcheck) + `}`
	}
	return s
}
