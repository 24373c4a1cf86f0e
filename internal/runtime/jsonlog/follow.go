package jsonlog

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// How often the file is looked at although nothing was reported: rarely when
// inotify works, since it is only a net, else as often as a person notices.
const (
	lookWatched = 2 * time.Second
	lookBlind   = 100 * time.Millisecond
)

// follow reads on until the writer is done.
func (r *reader) follow(ctx context.Context) error {
	pause := lookWatched
	if r.changed == nil {
		pause = lookBlind
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for done := false; ; timer.Reset(pause) {
		if err := r.catchUp(ctx); err != nil || done {
			return err
		}
		if !r.opts.Until.IsZero() && time.Now().After(r.opts.Until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.opts.Done:
			done = true // once more: what was written before it was done
		case <-r.changed:
		case <-timer.C:
		}
	}
}

// catchUp reads what is new, through any number of rotations.
func (r *reader) catchUp(ctx context.Context) error {
	for {
		if r.cur != nil {
			if err := r.advance(ctx); err != nil {
				return err
			}
		}
		st, err := os.Stat(r.path)
		if err != nil || (r.cur != nil && os.SameFile(st, r.id)) {
			return nil // absent: not begun, or between two steps of a rotation
		}
		if err := r.next(ctx); err != nil {
			return err
		}
	}
}

// next goes on to the files that came after the current one, which is complete
// now that it is no longer the newest.
func (r *reader) next(ctx context.Context) error {
	if r.cur != nil {
		if err := r.advance(ctx); err != nil {
			return err
		}
	}
	list, err := segments(r.path)
	if err != nil {
		return err
	}
	for i, s := range list {
		if r.id != nil && os.SameFile(s.id, r.id) {
			closeAll(list[i:])
			list = list[:i]
			break
		}
	}
	return r.segments(ctx, list)
}

// watch reports changes in the directory of a file. Without inotify its
// channel is nil.
type watch struct {
	changed <-chan struct{}
	file    *os.File
}

func newWatch(path string) watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return watch{}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		f.Close()
		return watch{}
	}
	changed := make(chan struct{}, 1)
	go tell(f, changed) // ends when close closes f
	return watch{changed, f}
}

// tell sends on changed, never waiting, until f is closed.
func tell(f *os.File, changed chan<- struct{}) {
	buf := make([]byte, 4<<10)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (w watch) close() {
	if w.file != nil {
		w.file.Close()
	}
}
