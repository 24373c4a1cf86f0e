package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containerd/errdefs"

	"isle/internal/runtime/shim/wire"
)

// Attach joins a process's stdio until it ends, ctx is done, or a.In yields
// the detach keys: then the error is ErrDetached. Without a.Wait, a process
// that is not there is NotFound.
//
// a.In is read until it ends, also after Attach has returned if it does not: a
// read cannot be called off. Close it.
func (c *Client) Attach(ctx context.Context, p Proc, a Attach) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req := wire.Attach{Proc: wire.Proc(p), Stdin: a.In != nil, Out: a.Out != nil, Err: a.Err != nil, Await: a.Wait}
	if _, err := c.exchange(conn, wire.OpAttach, req); err != nil {
		return withContext(ctx, err)
	}
	if a.Ready != nil {
		a.Ready()
	}
	detached := make(chan struct{})
	if a.In != nil {
		go func() { // ends with a.In or the connection
			if feed(conn, a.In, a.DetachKeys) {
				close(detached)
				conn.Close()
			}
		}()
	}
	err = drain(conn, a)
	select {
	case <-detached:
		return ErrDetached
	default:
		return withContext(ctx, err)
	}
}

func withContext(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// drain writes output until the shim says that it was all.
func drain(conn net.Conn, a Attach) error {
	buf := make([]byte, wire.MaxData)
	for {
		kind, p, err := wire.ReadData(conn, buf)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("isle-shim has gone: %w", errdefs.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		switch kind {
		case wire.Stdout:
			_, err = a.Out.Write(p)
		case wire.Stderr:
			_, err = a.Err.Write(p)
		case wire.End:
			return nil
		case wire.Dropped:
			return fmt.Errorf("%s: %w", p, errdefs.ErrResourceExhausted)
		}
		if err != nil {
			return fmt.Errorf("write to attached client: %w", err)
		}
	}
}

// feed sends in to the process. It reports whether the detach keys were typed.
func feed(conn net.Conn, in io.Reader, keys []byte) (detached bool) {
	k := &detacher{keys: keys}
	buf, frame := make([]byte, wire.MaxData/2), []byte(nil)
	send := func(kind wire.Kind, p []byte) error {
		frame = wire.AppendData(frame[:0], kind, p)
		_, err := conn.Write(frame)
		return err
	}
	for {
		n, err := in.Read(buf)
		p, detached := k.filter(buf[:n])
		if len(p) > 0 && send(wire.Stdin, p) != nil {
			return detached
		}
		if detached {
			return true
		}
		if err != nil {
			send(wire.Stdin, k.rest())
			send(wire.CloseStdin, nil)
			return false
		}
	}
}
