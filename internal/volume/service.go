package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/sys/mountinfo"

	"isle/internal/ids"
	"isle/internal/rootfs"
	"isle/internal/runtime"
	"isle/internal/store"
)

// Local is the only driver there is.
const Local = "local"

// Config is what a Service needs.
type Config struct {
	Dir   string      // required: the data directory; volumes are below "volumes" in it
	Store store.Store // required
	Log   *slog.Logger
}

// Service keeps volumes. Its methods may be called concurrently.
type Service struct {
	dir   string
	store store.Store
	log   *slog.Logger

	mu    sync.Mutex       // guards turns
	turns map[string]*turn // by volume: one change at a time
}

var table = store.NewTable[Record]("volume")

// Open makes a Service. Nobody but root may look into its directory.
func Open(c Config) (*Service, error) {
	s := &Service{dir: filepath.Join(c.Dir, "volumes"), store: c.Store, log: c.Log, turns: map[string]*turn{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(s.dir, 0o710); err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	return s, nil
}

// turn is the lock of one volume, and how many hold it or wait for it.
type turn struct {
	sync.Mutex
	n int
}

// lock is held while a volume changes.
func (s *Service) lock(name string) (unlock func()) {
	s.mu.Lock()
	t := s.turns[name]
	if t == nil {
		t = new(turn)
		s.turns[name] = t
	}
	t.n++
	s.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.n--; t.n == 0 {
			delete(s.turns, name)
		}
	}
}

func (s *Service) data(name string) string { return filepath.Join(s.dir, name, "_data") }

// Create makes a volume, or finds the one that is there when it was made the
// same way.
func (s *Service) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	if req.ClusterVolumeSpec != nil {
		return volume.Volume{}, fmt.Errorf("volume %s: cluster volumes need a swarm: %w", req.Name, errdefs.ErrUnavailable)
	}
	if req.Driver != "" && req.Driver != Local && req.Driver != "default" {
		return volume.Volume{}, fmt.Errorf("error looking up volume plugin %s: plugin %q not found: %w", req.Driver, req.Driver, errdefs.ErrNotFound)
	}
	labels := maps.Clone(req.Labels)
	if req.Name == "" {
		req.Name = ids.New()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[Anonymous] = ""
	}
	if err := errors.Join(CheckName(req.Name), checkOptions(req.DriverOpts)); err != nil {
		return volume.Volume{}, fmt.Errorf("create %s: %w: %w", req.Name, err, errdefs.ErrInvalidArgument)
	}
	defer s.lock(req.Name)()
	if rec, err := s.get(ctx, req.Name); err == nil {
		return rec.same(req)
	} else if !errdefs.IsNotFound(err) {
		return volume.Volume{}, err
	}
	return s.create(ctx, req, labels)
}

// same is the volume if it was made as req says. Options that are not given
// are not compared.
func (r Record) same(req volume.CreateRequest) (volume.Volume, error) {
	if len(req.DriverOpts) > 0 && !maps.Equal(req.DriverOpts, r.Options) {
		return volume.Volume{}, fmt.Errorf("create %s: conflict: volume name must be unique: volume already exists with other options: %w", r.Name, errdefs.ErrConflict)
	}
	return r.Volume, nil
}

func (s *Service) create(ctx context.Context, req volume.CreateRequest, labels map[string]string) (volume.Volume, error) {
	rec := Record{Volume: volume.Volume{
		Name: req.Name, Driver: Local, Mountpoint: s.data(req.Name), Labels: labels, Options: maps.Clone(req.DriverOpts),
		Scope: "local", CreatedAt: time.Now().Format(time.RFC3339),
	}}
	dir := filepath.Dir(rec.Mountpoint)
	if err := os.Mkdir(dir, 0o710); err != nil && !errors.Is(err, fs.ErrExist) {
		return rec.Volume, fmt.Errorf("create %s: %w", req.Name, err)
	}
	err := os.Mkdir(rec.Mountpoint, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return rec.Volume, fmt.Errorf("create %s: %w", req.Name, err)
	}
	if err := s.put(ctx, rec); err != nil {
		return rec.Volume, errors.Join(err, os.RemoveAll(dir))
	}
	return rec.Volume, nil
}

func (s *Service) get(ctx context.Context, name string) (rec Record, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		rec, err = table.Get(tx, name)
		return err
	})
	if errdefs.IsNotFound(err) {
		return rec, fmt.Errorf("get %s: no such volume: %w", name, errdefs.ErrNotFound)
	}
	return rec, err
}

func (s *Service) put(ctx context.Context, rec Record) error {
	err := s.store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return table.Put(tx, rec.Name, rec) })
	if err != nil {
		return fmt.Errorf("volume %s: %w", rec.Name, err)
	}
	return nil
}

// Find returns a volume. Class NotFound with Docker's text when there is none.
func (s *Service) Find(ctx context.Context, name string) (volume.Volume, error) {
	rec, err := s.get(ctx, name)
	return rec.Volume, err
}

// List returns all volumes, by name.
func (s *Service) List(ctx context.Context) ([]volume.Volume, error) {
	out := []volume.Volume{}
	err := s.store.View(ctx, func(tx store.Tx) error {
		out = out[:0]
		for rec, err := range table.All(tx) {
			if err != nil {
				return err
			}
			out = append(out, rec.Volume)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	return out, nil
}

// Remove deletes a volume and its data. With force a missing one is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	defer s.lock(name)()
	rec, err := s.get(ctx, name)
	if errdefs.IsNotFound(err) && force {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.unmountAll(rec); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	// The record goes last: what cannot be deleted is still there to be removed.
	if err := os.RemoveAll(filepath.Dir(s.data(name))); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	err = s.store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { table.Delete(tx, name); return nil })
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// unmountAll makes sure that deleting the directory deletes nothing of
// somebody else's that is mounted there.
func (s *Service) unmountAll(rec Record) error {
	for range 64 {
		on, err := mountinfo.Mounted(rec.Mountpoint)
		if err != nil || !on {
			return err
		}
		if err := unmount(rec.Mountpoint); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is mounted more often than can be: %w", rec.Mountpoint, errdefs.ErrFailedPrecondition)
}

// Mount makes the volume's files available. A volume with options is mounted
// for its first user. Repeating it is harmless.
func (s *Service) Mount(ctx context.Context, name, user string) (string, error) {
	defer s.lock(name)()
	rec, err := s.get(ctx, name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(rec.Mountpoint, 0o755); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	if len(rec.Options) == 0 {
		return rec.Mountpoint, nil
	}
	mounted, err := mountinfo.Mounted(rec.Mountpoint)
	if err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	if !mounted {
		if err := s.mount(ctx, rec); err != nil {
			return "", err
		}
	}
	if !slices.Contains(rec.Users, user) {
		rec.Users = append(slices.Clone(rec.Users), user)
		if err := s.put(ctx, rec); err != nil {
			return "", errors.Join(err, s.unmountIf(!mounted, rec))
		}
	}
	return rec.Mountpoint, nil
}

func (s *Service) mount(ctx context.Context, rec Record) error {
	m := parseOptions(rec.Options)
	if err := m.resolve(ctx); err != nil {
		return fmt.Errorf("error while mounting volume '%s': %w", rec.Mountpoint, err)
	}
	if err := m.mount(rec.Mountpoint); err != nil {
		return fmt.Errorf("error while mounting volume '%s': failed to mount local volume: mount %s:%s, flags: %#x, data: %s: %w",
			rec.Mountpoint, m.device, rec.Mountpoint, m.flags, rec.Options["o"], err)
	}
	return nil
}

func (s *Service) unmountIf(cond bool, rec Record) error {
	if !cond {
		return nil
	}
	return unmount(rec.Mountpoint)
}

// Unmount takes a user off; the last one's leaving unmounts.
func (s *Service) Unmount(ctx context.Context, name, user string) error {
	defer s.lock(name)()
	rec, err := s.get(ctx, name)
	if err != nil {
		return err
	}
	i := slices.Index(rec.Users, user)
	if i < 0 {
		return nil
	}
	rec.Users = slices.Delete(slices.Clone(rec.Users), i, i+1)
	if len(rec.Users) == 0 {
		if err := unmount(rec.Mountpoint); err != nil {
			return fmt.Errorf("error while unmounting volume '%s': %w", rec.Mountpoint, err)
		}
	}
	return s.put(ctx, rec)
}

// filler is who mounts a volume while it is filled.
const filler = "fill"

// Fill copies what the image has at dir into the volume if that is empty. No
// such directory in the image is no error.
func (s *Service) Fill(ctx context.Context, name string, mounts []runtime.Mount, dir string) (err error) {
	to, err := s.Mount(ctx, name, filler)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Unmount(context.WithoutCancel(ctx), name, filler)) }()
	defer s.lock(name)()
	view, err := rootfs.Mounted(mounts, nil)
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", name, err)
	}
	defer view.Close()
	if err := view.CopyOut(ctx, dir, to); err != nil {
		return fmt.Errorf("fill volume %s from %s: %w", name, dir, err)
	}
	return nil
}

// Usage is the size of the volume's files on disk. Those of a volume with
// options are not ours to count: -1.
func (s *Service) Usage(ctx context.Context, name string) (int64, error) {
	rec, err := s.get(ctx, name)
	if err != nil {
		return 0, err
	}
	if len(rec.Options) > 0 {
		return -1, nil
	}
	return diskUsage(ctx, rec.Mountpoint)
}
