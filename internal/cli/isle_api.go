package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
)

// call asks one of Isle's own endpoints, over the connection that the library
// has found. in may be nil.
func call(ctx context.Context, dockerCLI command.Cli, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://isle/isle/v1"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	dial := dockerCLI.Client().Dialer()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	resp, err := c.Do(req)
	if err != nil {
		return unreachable(ctx, dockerCLI, err)
	}
	defer resp.Body.Close()
	return decodeAnswer(resp, out)
}

// unreachable lets the library say it as it does for all other commands.
func unreachable(ctx context.Context, dockerCLI command.Cli, err error) error {
	if _, perr := dockerCLI.Client().Info(ctx, client.InfoOptions{}); perr != nil {
		return perr
	}
	return err
}

func decodeAnswer(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return json.Unmarshal(b, out)
	}
	var said struct {
		Message string `json:"message"`
	}
	switch json.Unmarshal(b, &said); {
	case said.Message == "page not found":
		return errors.New("the daemon has no such endpoint: it is not isled, or an older one")
	case said.Message == "":
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return fmt.Errorf("Error response from daemon: %s", said.Message)
}

// formatJSON is the one value that --format of Isle's own commands takes.
const formatJSON = "json"

func checkFormat(format string) error {
	if format != "" && format != "table" && format != formatJSON {
		return cli.StatusError{StatusCode: 1, Status: "--format " + format + ": it must be table or json"}
	}
	return nil
}

// printJSON writes each of vs in a line of its own, as the library's lists do.
func printJSON[T any](w io.Writer, vs ...T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, v := range vs {
		if err := enc.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
