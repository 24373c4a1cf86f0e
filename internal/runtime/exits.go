package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"isle/internal/runtime/shim/wire"
)

// Exits delivers every exit that is not acknowledged, then those to come, each
// once. It finds the shim again when that was restarted. The channel is closed
// when ctx is done.
func (c *Client) Exits(ctx context.Context) <-chan Exit {
	out := make(chan Exit)
	go func() {
		defer close(out)
		told := map[Exit]bool{} // by the shim, which repeats itself after a reconnection
		for pause := time.Duration(0); ctx.Err() == nil; pause = min(2*pause+5*time.Millisecond, time.Second) {
			sleep(ctx, pause)
			began := time.Now()
			err := c.followExits(ctx, out, told)
			if ctx.Err() == nil {
				c.conf.Log.Warn("lost the connection to isle-shim", "error", err)
			}
			if time.Since(began) > time.Second {
				pause = 0
			}
		}
	}()
	return out
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// followExits reads one connection to its end.
func (c *Client) followExits(ctx context.Context, out chan<- Exit, told map[Exit]bool) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := c.exchange(conn, wire.OpExits, nil); err != nil {
		return err
	}
	if err := c.forgetAcked(ctx, told); err != nil {
		return err
	}
	for {
		e, err := readExit(conn)
		if err != nil {
			return err
		}
		if told[e] {
			continue
		}
		told[e] = true
		select {
		case out <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// forgetAcked drops from told what the shim has no more: told stays as small
// as the shim's list.
func (c *Client) forgetAcked(ctx context.Context, told map[Exit]bool) error {
	if len(told) == 0 {
		return nil
	}
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	left := map[Exit]bool{}
	for _, s := range list {
		if s.Exit != nil {
			left[*s.Exit] = true
		}
	}
	for e := range told {
		if !left[e] {
			delete(told, e)
		}
	}
	return nil
}

func readExit(conn net.Conn) (Exit, error) {
	var resp wire.Response
	if err := wire.ReadFrame(conn, &resp); err != nil {
		return Exit{}, err
	}
	if resp.Error != nil {
		return Exit{}, classified(resp.Error)
	}
	var e wire.Exit
	if err := json.Unmarshal(resp.Body, &e); err != nil {
		return Exit{}, fmt.Errorf("read exit: %w", err)
	}
	return exitOf(e), nil
}
