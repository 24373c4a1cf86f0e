package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"

	"isle/internal/config"
)

// namespace is the one containerd namespace that we use.
const namespace = "isle"

// Config is what a Service needs.
type Config struct {
	Dir           string // the data directory; required
	RunDir        string // where short names for long mount options are made; required
	StorageDriver string // "overlay", "native", or empty: overlay where it works
	Registries    map[string]config.Registry
	Toolbox       string       // path of the isle-toolbox binary
	Log           *slog.Logger // required
}

// Service is the images of one isled. All methods may be called concurrently.
type Service struct {
	cfg    Config
	log    *slog.Logger
	ctdlog *logrus.Entry // containerd's way to our log

	bolt    *bolt.DB
	db      *metadata.DB
	content content.Store
	images  images.Store
	leases  leases.Manager
	snap    snapshots.Snapshotter
	storage storage

	blobs   keyedLock // one download of a blob at a time
	names   sync.Mutex
	collect sync.RWMutex // held for writing while garbage is looked for
	running collection   // guarded by collect
	lowers  lowerCache
	builtin builtinState
}

// Open opens the image store below c.Dir, making it when it is not there.
// What a crash left behind is collected.
func Open(c Config) (*Service, error) {
	root := filepath.Join(c.Dir, "image")
	for _, d := range []string{root, filepath.Join(c.Dir, "rootfs"), c.RunDir} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("image store: %w", err)
		}
	}
	s := &Service{cfg: c, log: c.Log, ctdlog: bridge(c.Log)}
	ctx := s.context(context.Background())
	var err error
	if s.storage, err = openStorage(c, filepath.Join(root, "snapshots")); err != nil {
		return nil, err
	}
	if err := s.openDB(ctx, root); err != nil {
		return nil, errors.Join(err, s.storage.Close())
	}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) openDB(ctx context.Context, root string) error {
	// The store makes this when it needs it, and cannot collect before.
	if err := os.MkdirAll(filepath.Join(root, "content", "blobs", "sha256"), 0o755); err != nil {
		return fmt.Errorf("image store: content: %w", err)
	}
	blobs, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return fmt.Errorf("image store: content: %w", err)
	}
	s.bolt, err = bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return fmt.Errorf("image store: metadata: %w (hint: is another isled using %s?)", err, s.cfg.Dir)
	}
	s.db = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{s.storage.name: s.storage.Snapshotter})
	if err := s.db.Init(ctx); err != nil {
		return fmt.Errorf("image store: metadata: %w", errors.Join(err, s.bolt.Close()))
	}
	s.db.RegisterCollectibleResource(resourceRootfs, rootfsCollector{s})
	s.content, s.snap = s.db.ContentStore(), s.db.Snapshotter(s.storage.name)
	s.images, s.leases = metadata.NewImageStore(s.db), metadata.NewLeaseManager(s.db)
	return nil
}

// sweep drops the leases of operations that a crash ended, and what only they
// held. Interrupted downloads stay until their lease expires.
func (s *Service) sweep(ctx context.Context) error {
	all, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("image store: leases: %w", err)
	}
	for _, l := range all {
		if l.ID == resumeLease {
			continue
		}
		if err := s.leases.Delete(ctx, l); err != nil {
			return fmt.Errorf("image store: lease %s: %w", l.ID, err)
		}
	}
	return s.gc(ctx)
}

// Close closes the databases. Nothing else may be in progress.
func (s *Service) Close() error {
	return errors.Join(s.db.Close(), s.storage.Close())
}

// Driver is the snapshotter's name, and why it is not the wanted one.
func (s *Service) Driver() (name string, warnings []string) {
	return s.storage.name, s.storage.warnings
}

// context prepares ctx for containerd's packages.
func (s *Service) context(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, namespace), s.ctdlog)
}

// gc removes everything that no image, container or lease needs. Others wait
// only until it is known what goes, not until the files are gone.
func (s *Service) gc(ctx context.Context) error {
	s.collect.Lock()
	unlock := sync.OnceFunc(func() {
		s.lowers.clear()
		s.collect.Unlock()
	})
	defer unlock()
	held, err := s.holdings(ctx)
	if err != nil {
		return fmt.Errorf("image store: garbage collection: %w", err)
	}
	s.running = collection{held, unlock}
	if _, err := s.db.GarbageCollect(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("image store: garbage collection: %w", err)
	}
	return errors.Join(s.dropLinks(), s.fillBallast())
}

// leased returns a context whose new content is safe from collection until
// release is called, which collects what has not been given another holder.
func (s *Service) leased(ctx context.Context) (_ context.Context, release func() error, err error) {
	l, err := s.leases.Create(ctx, leases.WithRandomID())
	if err != nil {
		return nil, nil, fmt.Errorf("image store: lease: %w", err)
	}
	return leases.WithLease(ctx, l.ID), func() error {
		ctx := context.WithoutCancel(ctx)
		if err := s.dropBallast(); err != nil {
			return err
		}
		if err := s.leases.Delete(ctx, l); err != nil {
			return fmt.Errorf("image store: lease: %w", err)
		}
		return s.gc(ctx)
	}, nil
}
