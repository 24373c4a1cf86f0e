package cni

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// good is a request that can be served; change is put into its configuration.
func good(command, change string) Request {
	return Request{command, "pod", "/run/netns/pod", "eth0", "IgnoreUnknown=1;K8S_POD_NAME=cart-0;K8S_POD_NAMESPACE=shop",
		[]byte(`{"cniVersion": "1.1.0", "name": "pods"` + change + `}`)}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := Parse(good(Add, `, "network": "app", "interface": "eth5", "runtime": "k8s", "defaultRoute": false,
		"dns": {"nameservers": ["10.0.0.1"], "search": ["a.test"]},
		"runtimeConfig": {"ips": ["10.0.0.9/24", "fd00::9"], "mac": "02:00:00:00:00:09", "aliases": ["shop"],
			"dns": {"searches": ["b.test"]},
			"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": "127.0.0.1"}, {"hostPort": 0, "containerPort": 1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Network != "app" || c.Interface != "eth5" || c.IfName != "eth0" || c.Runtime != "k8s" || c.WayOut == nil || *c.WayOut || c.Name != "cart-0" {
		t.Errorf("%+v", c)
	}
	if len(c.IPs) != 2 || c.IPs[0].String() != "10.0.0.9" || c.IPs[1].String() != "fd00::9" || c.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("%v %v", c.IPs, c.MAC)
	}
	if d := cmp.Diff([]string{"shop", "cart-0.shop"}, c.Aliases); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Port{{80, 8080, "tcp", "127.0.0.1"}}, c.Ports); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(DNS{Nameservers: []string{"10.0.0.1"}, Search: []string{"b.test"}}, c.DNS); d != "" {
		t.Error(d)
	}
}

// TestWishesByArguments: nerdctl says so which address a container is to have.
func TestWishesByArguments(t *testing.T) {
	t.Parallel()
	r := good(Add, "")
	r.Args = "IP=10.0.0.9;MAC=02:00:00:00:00:09;SOMETHING=else"
	c, err := Parse(r)
	if err != nil || c.IPs[0].String() != "10.0.0.9" || c.MAC.String() != "02:00:00:00:00:09" || c.Network != "pods" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	with := func(change func(*Request)) Request { r := good(Add, ""); change(&r); return r }
	config := func(s string) Request { return with(func(r *Request) { r.Config = []byte(s) }) }
	wish := func(s string) Request { return good(Add, `, "runtimeConfig": {`+s+`}`) }
	for what, c := range map[string]struct {
		Request
		code Code
	}{
		"no JSON":                 {config("x"), CodeDecode},
		"nothing":                 {config(""), CodeDecode},
		"JSON of another kind":    {config("[]"), CodeDecode},
		"a number for a name":     {config(`{"cniVersion": "1.1.0", "name": 1}`), CodeDecode},
		"no version":              {config(`{"name": "pods"}`), CodeVersion},
		"an old version":          {config(`{"cniVersion": "0.2.0", "name": "pods"}`), CodeVersion},
		"a version to come":       {config(`{"cniVersion": "9.0.0", "name": "pods"}`), CodeVersion},
		"no name":                 {config(`{"cniVersion": "1.1.0"}`), CodeConfig},
		"a name with a slash":     {config(`{"cniVersion": "1.1.0", "name": "../x"}`), CodeConfig},
		"CHECK before 0.4.0":      {Request{Check, "pod", "/run/netns/pod", "eth0", "", []byte(`{"cniVersion": "0.3.1", "name": "pods", "prevResult": {}}`)}, CodeVersion},
		"GC before 1.1.0":         {Request{GC, "", "", "", "", []byte(`{"cniVersion": "1.0.0", "name": "pods", "cni.dev/valid-attachments": []}`)}, CodeVersion},
		"GC without a list":       {good(GC, ""), CodeConfig},
		"GC with another list":    {good(GC, `, "cni.dev/valid-attachments": {}`), CodeDecode},
		"CHECK without a result":  {good(Check, ""), CodeConfig},
		"another command":         {good("EXPLODE", ""), CodeEnvironment},
		"no id":                   {with(func(r *Request) { r.ContainerID = "" }), CodeEnvironment},
		"an id that climbs":       {with(func(r *Request) { r.ContainerID = "../x" }), CodeEnvironment},
		"an endless id":           {with(func(r *Request) { r.ContainerID = strings.Repeat("x", 300) }), CodeEnvironment},
		"no namespace":            {with(func(r *Request) { r.NetNS = "" }), CodeEnvironment},
		"a namespace that climbs": {with(func(r *Request) { r.NetNS = "/run/netns/../../x" }), CodeEnvironment},
		"no interface":            {with(func(r *Request) { r.IfName = "" }), CodeEnvironment},
		"an interface that is ..": {with(func(r *Request) { r.IfName = ".." }), CodeEnvironment},
		"an interface with a :":   {with(func(r *Request) { r.IfName = "a:b" }), CodeEnvironment},
		"arguments without =":     {with(func(r *Request) { r.Args = "x" }), CodeEnvironment},
		"IP without an address":   {with(func(r *Request) { r.Args = "IP=x" }), CodeEnvironment},
		"a long own interface":    {good(Add, `, "interface": "a234567890123456"`), CodeConfig},
		"a runtime with a slash":  {good(Add, `, "runtime": "a/b"`), CodeConfig},
		"two addresses":           {wish(`"ips": ["10.0.0.1", "10.0.0.2"]`), CodeConfig},
		"an address with a zone":  {wish(`"ips": ["fe80::1%eth0"]`), CodeConfig},
		"a short MAC address":     {wish(`"mac": "02:00"`), CodeConfig},
		"a port beyond":           {wish(`"portMappings": [{"hostPort": 70000, "containerPort": 1}]`), CodeConfig},
		"no port inside":          {wish(`"portMappings": [{"hostPort": 7}]`), CodeConfig},
		"a strange protocol":      {wish(`"portMappings": [{"hostPort": 7, "containerPort": 7, "protocol": "icmp"}]`), CodeConfig},
		"a host that is a name":   {wish(`"portMappings": [{"hostPort": 7, "containerPort": 7, "hostIP": "x"}]`), CodeConfig},
		"a negative bandwidth":    {wish(`"bandwidth": {"ingressRate": -1}`), CodeDecode},
		"a result that is none":   {good(Add, `, "prevResult": []`), CodeDecode},
	} {
		_, err := Parse(c.Request)
		if err == nil || CodeOf(err) != c.code || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: code %d, want %d: %v", what, CodeOf(err), c.code, err)
		}
	}
}

// TestCodes: what a runtime decides by follows from the class.
func TestCodes(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]Code{
		errdefs.ErrUnavailable: CodeAgain, errdefs.ErrInvalidArgument: CodeConfig, errdefs.ErrNotFound: CodeConfig,
		errdefs.ErrConflict: CodeConflict, errdefs.ErrInternal: CodeInternal, With(CodeUnknown, errdefs.ErrInternal): CodeUnknown,
	} {
		if got := CodeOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// FuzzParse: whatever is accepted is safe to use as a name, a path and a record.
func FuzzParse(f *testing.F) {
	for _, r := range []Request{good(Add, ""), good(Check, `, "prevResult": {"ips": [{"address": "10.0.0.1/8"}]}`), good(GC, `, "cni.dev/valid-attachments": null`)} {
		f.Add(r.Command, r.ContainerID, r.NetNS, r.IfName, r.Args, r.Config)
	}
	f.Fuzz(func(t *testing.T, command, id, netns, ifname, args string, config []byte) {
		c, err := Parse(Request{command, id, netns, ifname, args, config})
		if err != nil {
			if CodeOf(err) == CodeInternal {
				t.Errorf("an error without a code: %v", err)
			}
			return
		}
		if !slices.Contains(Versions, c.Version) || strings.ContainsAny(c.Config+c.Runtime+c.Name, "/\x00 ") {
			t.Errorf("%+v", c)
		}
		if c.Command == GC || c.Command == Status {
			return
		}
		if strings.ContainsAny(c.ContainerID+c.Interface, "/\x00 ") || c.Command != Del && path.Clean(c.NetNS) != c.NetNS {
			t.Errorf("%+v", c)
		}
		out, err := c.Prev.With(c.Version, Made{})
		if err != nil || !json.Valid(out) {
			t.Errorf("%s %v", out, err)
		}
	})
}
