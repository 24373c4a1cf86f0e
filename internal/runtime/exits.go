package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
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
		for pause := time.Duration(0); ctx.Err() == nil; pause = min(2*pause+5*time.Millisecond, time.Second) {
			sleep(ctx, pause)
			began := time.Now()
			err := c.followExits(ctx, out)
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
func (c *Client) followExits(ctx context.Context, out chan<- Exit) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := c.exchange(conn, wire.OpExits, nil); err != nil {
		return err
	}
	for {
		e, err := readExit(conn)
		if err != nil {
			return err
		}
		if onTrial(e.ID) || !c.told.first(e) {
			continue
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// exitsTold are the exits that were delivered and are not acknowledged yet:
// the shim repeats those after a reconnection.
type exitsTold struct {
	mu sync.Mutex
	m  map[Proc]Exit
}

// first reports whether e has not been delivered before.
func (t *exitsTold) first(e Exit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.m[e.Proc]; ok && old == e {
		return false
	}
	if t.m == nil {
		t.m = map[Proc]Exit{}
	}
	t.m[e.Proc] = e
	return true
}

func (t *exitsTold) forget(p Proc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, p)
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
