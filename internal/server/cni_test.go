package server_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestCNI: the answer is what isle-cni prints, also when it is an error.
func TestCNI(t *testing.T) {
	h := serve(t, fake())
	const where = "/isle/v1/cni/add?containerID=pod&netns=/run/netns/pod&ifname=eth0&args="
	conf := `{"cniVersion": "1.0.0", "name": "pods"}`
	if got := h.want(200, "POST", where, conf); !strings.Contains(got, `"interfaces":[{"name":"eth0","sandbox":"/run/netns/pod"}]`) {
		t.Error(got)
	}
	if got := h.want(204, "POST", "/isle/v1/cni/del?containerID=pod&ifname=eth0", conf); got != "" {
		t.Errorf("%q", got)
	}
	for path, c := range map[string]struct {
		body string
		code int
	}{
		where: {`{"cniVersion": "0.1.0", "name": "pods"}`, 1},
		"/isle/v1/cni/add?containerID=..%2Fx&netns=/run/netns/pod&ifname=eth0": {conf, 4},
		"/isle/v1/cni/boom":                    {conf, 4},
		"/isle/v1/cni/status":                  {`{"cniVersion": `, 6},
		"/isle/v1/cni/gc":                      {strings.Replace(conf, "1.0.0", "1.1.0", 1), 7},
		"/isle/v1/cni/check?containerID=a&x=%": {conf, 0},
	} {
		if got := h.want(400, "POST", path, c.body); c.code != 0 && !strings.Contains(got, fmt.Sprintf(`"code":%d,`, c.code)) {
			t.Errorf("%s: %s", path, got)
		}
	}
	h.want(400, "POST", where, "")
	h.want(404, "GET", where, "")
}
