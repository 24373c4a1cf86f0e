package servertest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	isle "isle/internal/container"
	"isle/internal/filters"
	"isle/internal/ids"
)

type session struct {
	id, container string
	req           container.ExecCreateRequest
	proc          *proc
	code          *int
}

func (b *Backend) ExecCreate(_ context.Context, ref string, req container.ExecCreateRequest) (id string, err error) {
	err = b.with(ref, func(c *Container) error {
		b.Last = req
		if c.Status != container.StateRunning {
			return fmt.Errorf("container %s is not running: %w", c.ID, errdefs.ErrConflict)
		}
		id = ids.New()
		b.execs[id] = &session{id: id, container: c.ID, req: req}
		return nil
	})
	return id, err
}

func (b *Backend) exec(id string) (*session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.execs[id]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("No such exec instance: %s: %w", id, errdefs.ErrNotFound)
}

func (b *Backend) ExecStart(ctx context.Context, id string, o isle.ExecStartOptions) error {
	x, err := b.exec(id)
	if err != nil {
		return err
	}
	var s isle.Streams
	if !o.Detach {
		if x.req.Cmd[0] == "early" {
			return fmt.Errorf("OCI runtime exec failed: %s", strings.Join(x.req.Cmd, " "))
		}
		if s, err = o.Streams(x.req.Tty); err != nil {
			return err
		}
	}
	if x.req.Cmd[0] == "missing" {
		code := 127
		b.mu.Lock()
		x.code = &code
		b.mu.Unlock()
		return fmt.Errorf("OCI runtime exec failed: exec failed: unable to start container process: exec: %q: executable file not found in $PATH: %w", "missing", errdefs.ErrInvalidArgument)
	}
	p, pctx := newProc()
	p.add(s)
	if !x.req.AttachStdin {
		_ = p.stdin.Close()
	}
	b.mu.Lock()
	x.proc = p
	b.mu.Unlock()
	go func() {
		code := p.run(pctx, x.req.Cmd, p.write)
		b.mu.Lock()
		x.code = &code
		b.mu.Unlock()
		p.end(code)
	}()
	if o.Detach {
		return nil
	}
	if err := p.converse(ctx, s, x.req.AttachStdin); err != nil {
		p.cancel()
		_ = p.in.Close()
		return err
	}
	return nil
}

func (b *Backend) ExecInspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	x, err := b.exec(id)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return container.ExecInspectResponse{
		ID: id, ContainerID: x.container, ExitCode: x.code, Running: x.proc != nil && x.code == nil,
		ProcessConfig: &container.ExecProcessConfig{Entrypoint: x.req.Cmd[0], Arguments: x.req.Cmd[1:]},
	}, nil
}

func (b *Backend) ExecResize(_ context.Context, id string, h, w uint16) error {
	x, err := b.exec(id)
	if err == nil && x.proc == nil {
		err = fmt.Errorf("exec %s is not running: %w", id, errdefs.ErrConflict)
	}
	b.keep([2]uint16{h, w})
	return err
}

// ContainerLogs follows until the container ends.
func (b *Backend) ContainerLogs(ctx context.Context, ref string, o isle.LogsOptions) error {
	var c *Container
	if err := b.with(ref, func(found *Container) error { c, b.Last = found, o; return nil }); err != nil {
		return err
	}
	s := o.Streams(c.Opts.Config.Tty)
	for done := 0; ; {
		b.mu.Lock()
		logs, more, ended := c.logs, c.logged, c.Status != container.StateRunning
		b.mu.Unlock()
		for ; done < len(logs); done++ {
			if l := logs[done]; l.err && o.Stderr || !l.err && o.Stdout {
				if err := put(s, l); err != nil {
					return err
				}
			}
		}
		if !o.Follow || ended {
			return nil
		}
		select {
		case <-more:
		case <-c.proc.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Backend) ContainersPrune(_ context.Context, f filters.Args) (container.PruneReport, error) {
	b.keep(f)
	return container.PruneReport{}, nil
}

func (b *Backend) ContainerCommit(_ context.Context, ref string, o isle.CommitOptions) (string, error) {
	return "sha256:" + strings.Repeat("c", 64), b.with(ref, func(*Container) error { b.Last = o; return nil })
}

// File is what every container has at every path but /missing.
const File = "what is in the file"

func (b *Backend) ContainerStat(_ context.Context, ref, path string) (container.PathStat, error) {
	st := container.PathStat{Name: path[strings.LastIndexByte(path, '/')+1:], Size: int64(len(File)), Mode: 0o644}
	return st, b.with(ref, func(c *Container) error {
		if path == "/missing" {
			return fmt.Errorf("Could not find the file %s in container %s: %w", path, ref, errdefs.ErrNotFound)
		}
		return nil
	})
}

func (b *Backend) ContainerGet(ctx context.Context, ref, path string) (io.ReadCloser, container.PathStat, error) {
	st, err := b.ContainerStat(ctx, ref, path)
	if err != nil {
		return nil, st, err
	}
	return io.NopCloser(bytes.NewReader(Tar(st.Name, File))), st, nil
}

// Tar is an archive of one file.
func Tar(name, text string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return buf.Bytes()
}

// Put is what Last holds after a ContainerPut.
type Put struct {
	Path  string
	Bytes int64
	Opts  isle.PutOptions
}

func (b *Backend) ContainerPut(_ context.Context, ref, path string, r io.Reader, o isle.PutOptions) error {
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return err
	}
	return b.with(ref, func(*Container) error { b.Last = Put{path, n, o}; return nil })
}

func (b *Backend) ContainerExport(_ context.Context, ref string, w io.Writer) error {
	if err := b.with(ref, func(*Container) error { return nil }); err != nil {
		return err
	}
	_, err := w.Write(Tar("etc/hostname", ref))
	return err
}

func (b *Backend) ContainerChanges(_ context.Context, ref string) ([]container.FilesystemChange, error) {
	return []container.FilesystemChange{{Kind: container.ChangeAdd, Path: "/new"}}, b.with(ref, func(*Container) error { return nil })
}
