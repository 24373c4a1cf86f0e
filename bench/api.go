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

// api speaks just enough of the Docker API, over one kept connection.
type api struct {
	http    http.Client
	sleepID string
}

func dial(socket string) (*api, error) {
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
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.41"+path, body)
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

func (a *api) create(ctx context.Context, network string, port int, cmd ...string) (string, error) {
	host := object{"NetworkMode": network}
	conf := object{"Image": imageName, "Cmd": cmd, "HostConfig": host}
	if port != 0 {
		host["PortBindings"] = object{"80/tcp": []object{{"HostPort": fmt.Sprint(port)}}}
		conf["ExposedPorts"] = object{"80/tcp": object{}}
	}
	var made struct{ Id string }
	err := a.call(ctx, "POST", "/containers/create", conf, &made)
	return made.Id, err
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
	id, err := a.create(ctx, network, port, "true")
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
	id, err := a.create(ctx, "bridge", 0, "sleep", "100000")
	if err != nil {
		return "", err
	}
	a.sleepID = id
	return id, a.start(ctx, id)
}

func (a *api) exec(ctx context.Context, id string, cmd ...string) error {
	var made struct{ Id string }
	if err := a.call(ctx, "POST", "/containers/"+id+"/exec", object{"Cmd": cmd, "AttachStdout": true}, &made); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://engine/v1.41/exec/"+made.Id+"/start", bytes.NewReader([]byte("{}")))
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
