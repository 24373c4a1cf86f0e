package remote

import (
	"cmp"
	"context"
	"sync"
	"time"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Seats moves links of the host into namespaces and back. See package kernel/seat.
type Seats interface {
	// Take moves a link in. After an error it is on the host again.
	Take(ctx context.Context, s netspec.Seat) (netspec.Seated, error)
	// Check reports what is no longer as Take left it.
	Check(ctx context.Context, s netspec.Seat, have netspec.Seated) error
	// Return takes it back out. That it is not there is no error; have is zero when
	// it is not known.
	Return(ctx context.Context, s netspec.Seat, have netspec.Seated) error
}

// Config is what a Registry needs.
type Config struct {
	Seats   Seats         // required for networks
	Sockets []string      // directories of sockets; nil: Docker's
	Specs   []string      // directories of files with addresses; nil: Docker's
	Answer  time.Duration // how long a call may take; 0: a minute
	Wait    time.Duration // how long an operation waits for a plugin that cannot be reached; 0: 30 s, as Docker
	Pause   time.Duration // before the second try, then twice as long each time; 0: a second
	Size    int64         // bytes of an answer that are taken; 0: a megabyte
}

// Registry finds plugins and gives drivers for them. It holds nothing that is not
// found again. Its methods, and those of the drivers, may be called by several
// goroutines.
type Registry struct {
	cfg   Config
	began time.Time
	nodes *nodes

	mu      sync.Mutex
	plugins map[string]*plugin
	made    map[string]*life // networks by id: the life of the plugin that was told of them
}

// New makes a Registry. Nobody is asked before something is looked up.
func New(cfg Config) *Registry {
	if cfg.Sockets == nil {
		cfg.Sockets = socketDirs
	}
	if cfg.Specs == nil {
		cfg.Specs = specDirs
	}
	cfg.Answer = cmp.Or(cfg.Answer, time.Minute)
	cfg.Wait = cmp.Or(cfg.Wait, 30*time.Second)
	cfg.Pause = cmp.Or(cfg.Pause, time.Second)
	cfg.Size = cmp.Or(cfg.Size, 1<<20)
	return &Registry{cfg: cfg, began: time.Now(), nodes: newNodes(), plugins: map[string]*plugin{}, made: map[string]*life{}}
}

// Driver is that of a plugin, which may be away: nobody is asked.
func (r *Registry) Driver(name string) Driver { return Driver{r, r.plugin(name)} }

// IPAM is Driver for addresses.
func (r *Registry) IPAM(name string) IPAM { return IPAM{r.plugin(name)} }

// Outside is a Manager's Outside: a driver for each name that a plugin could have.
func (r *Registry) Outside(name string) (network.Driver, bool) {
	if !possible(name) {
		return nil, false
	}
	return r.Driver(name), true
}

// OutsideIPAM is a Manager's OutsideIPAM: the same for addresses.
func (r *Registry) OutsideIPAM(name string) (network.ExternalIPAM, bool) {
	if !possible(name) {
		return nil, false
	}
	return r.IPAM(name), true
}

// plugin is the one of a name. Only those that are there are remembered: else each
// wrong name would stay in memory.
func (r *Registry) plugin(name string) *plugin {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.plugins[name]
	if ok {
		return p
	}
	p = &plugin{name: name, cfg: r.cfg, hosts: r.nodes, turn: make(chan struct{}, 1)}
	if _, err := r.cfg.find(name); err == nil {
		r.plugins[name] = p
	}
	return p
}

// told remembers which life of a plugin knows a network.
func (r *Registry) told(network string, l *life) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l == nil {
		delete(r.made, network)
		return
	}
	r.made[network] = l
}

func (r *Registry) knows(l *life, network string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return l != nil && r.made[network] == l
}
