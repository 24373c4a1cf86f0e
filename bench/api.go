package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// apiBase has the oldest version that Docker 29 still speaks.
const apiBase = "http://engine/v1.44"

// api speaks just enough of the Docker API, over one kept connection.
type api struct {
	http    http.Client
	sleepID string
}

func connectAPI(socket string) (*api, error) {
	a := &api{}
	a.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	return a, a.call(context.Background(), "GET", "/_ping", nil, nil)
}

func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, apiBase+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, out)
}

type object map[string]any

// publishing is where a container's ports are published: container port to host
// port.
type publishing struct {
	ports map[int]int
	ip    string // of the host; empty: all, of both families
}

// onePort publishes port 80; 0: nothing.
func onePort(host int) publishing {
	if host == 0 {
		return publishing{}
	}
	return publishing{ports: map[int]int{80: host}}
}

// ports publishes n ports from first on, each as itself.
func ports(first, n int) publishing {
	p := publishing{ports: map[int]int{}}
	for i := range n {
		p.ports[first+i] = first + i
	}
	return p
}

func (p publishing) bindings() (exposed, bindings object) {
	exposed, bindings = object{}, object{}
	for container, host := range p.ports {
		key := fmt.Sprintf("%d/tcp", container)
		exposed[key] = object{}
		bindings[key] = []object{{"HostIp": p.ip, "HostPort": fmt.Sprint(host)}}
	}
	return exposed, bindings
}

func (a *api) create(ctx context.Context, network string, p publishing, cmd ...string) (string, error) {
	exposed, bindings := p.bindings()
	conf := object{"Image": imageName, "Cmd": cmd, "ExposedPorts": exposed,
		"HostConfig": object{"NetworkMode": network, "PortBindings": bindings}}
	var made struct{ Id string }
	err := a.call(ctx, "POST", "/containers/create", conf, &made)
	return made.Id, err
}

// sleeping creates a container that sleeps, and starts it. It gives the id also
// when the start fails.
func (a *api) sleeping(ctx context.Context, network string, p publishing) (string, error) {
	id, err := a.create(ctx, network, p, "sleep", "100000")
	if err != nil {
		return "", err
	}
	return id, a.start(ctx, id)
}

func (a *api) createNetwork(ctx context.Context, name, subnet string) error {
	return a.call(ctx, "POST", "/networks/create", object{"Name": name, "IPAM": object{"Config": []object{{"Subnet": subnet}}}}, nil)
}

func (a *api) removeNetwork(ctx context.Context, name string) error {
	return a.call(ctx, "DELETE", "/networks/"+name, nil, nil)
}

func (a *api) connect(ctx context.Context, network, id string) error {
	return a.call(ctx, "POST", "/networks/"+network+"/connect", object{"Container": id}, nil)
}

func (a *api) disconnect(ctx context.Context, network, id string) error {
	return a.call(ctx, "POST", "/networks/"+network+"/disconnect", object{"Container": id}, nil)
}

func (a *api) start(ctx context.Context, id string) error {
	return a.call(ctx, "POST", "/containers/"+id+"/start", nil, nil)
}

func (a *api) startWait(ctx context.Context, id string) error {
	if err := a.start(ctx, id); err != nil {
		return err
	}
	return a.call(ctx, "POST", "/containers/"+id+"/wait", nil, nil)
}

func (a *api) remove(ctx context.Context, id string) error {
	return a.call(ctx, "DELETE", "/containers/"+id+"?force=1&v=1", nil, nil)
}

func (a *api) life(ctx context.Context, network string, port int) error {
	id, err := a.create(ctx, network, onePort(port), "true")
	if err != nil {
		return err
	}
	if err := a.startWait(ctx, id); err != nil {
		return err
	}
	return a.remove(ctx, id)
}

// sleeper is a running container, made at the first call.
func (a *api) sleeper(ctx context.Context) (string, error) {
	if a.sleepID != "" {
		return a.sleepID, nil
	}
	id, err := a.sleeping(ctx, "bridge", publishing{})
	if err == nil {
		a.sleepID = id
	}
	return id, err
}

func (a *api) exec(ctx context.Context, id string, cmd ...string) error {
	var made struct{ Id string }
	if err := a.call(ctx, "POST", "/containers/"+id+"/exec", object{"Cmd": cmd, "AttachStdout": true}, &made); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", apiBase+"/exec/"+made.Id+"/start", bytes.NewReader([]byte("{}")))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
