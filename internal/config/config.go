// Package config is the configuration of one isled instance: few keys, every
// one with a default. Every path, the nft table's name, the link group, the
// prefix of link names and the parent cgroup come from here, so that several
// isleds can run on one machine.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// File is where the configuration is looked for when no other is named.
const File = "/etc/isle/isled.toml"

// Config is the whole configuration. The comments are what "isled config" prints.
type Config struct {
	DataDir  string   `toml:"data-dir" comment:"Images, volumes, writable layers, records. Survives a reboot."`
	RunDir   string   `toml:"run-dir" comment:"Sockets, namespaces, bundles. Should be a tmpfs."`
	Hosts    []string `toml:"hosts" comment:"Where the API listens: unix:///path (root:isle 0660), tcp://addr:port. Empty: unix://<run-dir>/isle.sock"`
	Group    string   `toml:"group" comment:"Group that may use the unix socket."`
	LogLevel string   `toml:"log-level" comment:"debug, info, warn, error."`

	Runtime  string             `toml:"runtime" comment:"OCI runtime for containers that name none. Empty: crun if it works here, else runc."`
	Runtimes map[string]Runtime `toml:"runtimes" comment:"More OCI runtimes, by name."`
	Init     string             `toml:"init" comment:"Program for --init. Empty: the one built into isle-shim."`

	CgroupParent string `toml:"cgroup-parent" comment:"Parent of the containers' cgroups: a path, or with the systemd driver a slice. Empty: /isle or isle.slice."`
	CgroupDriver string `toml:"cgroup-driver" comment:"cgroupfs or systemd. Empty: systemd where it is running with cgroup v2, else cgroupfs."`

	StorageDriver string `toml:"storage-driver" comment:"overlay or native. Empty: overlay if the data directory can hold it."`

	Network Network `toml:"network"`
	Cluster Cluster `toml:"cluster"`

	Registries map[string]Registry `toml:"registries" comment:"How to reach registries, by host[:port]."`

	DefaultUlimits  map[string]string `toml:"default-ulimits" comment:"For containers that set none: nofile = \"1024:524288\"."`
	ShutdownTimeout int               `toml:"shutdown-timeout" comment:"Unused while containers survive isled; seconds for 'isled stop --containers'."`
}

// Runtime is one OCI runtime program.
type Runtime struct {
	Path string   `toml:"path"`
	Args []string `toml:"args"`
}

// Registry is how to reach one registry.
type Registry struct {
	Mirrors  []string `toml:"mirrors" comment:"URLs tried first, in order."`
	Insecure bool     `toml:"insecure" comment:"Plain HTTP, or TLS without checking the certificate."`
	CA       string   `toml:"ca" comment:"File with certificates to trust."`
}

// Network is what concerns networks.
type Network struct {
	Table         string   `toml:"nft-table" comment:"Name of our nftables table (family inet)."`
	LinkPrefix    string   `toml:"link-prefix" comment:"Beginning of the names of our links; at most 5 characters."`
	LinkGroup     int      `toml:"link-group" comment:"Group number that marks links as ours."`
	GuardMark     uint32   `toml:"guard-mark" comment:"Bit of packets' marks by which the guards of our bridges know what the firewall has passed. 0: no guards, for hosts that forward past netfilter (IPVS, flowtables)."`
	Bridge        string   `toml:"bridge" comment:"Name of the default network's bridge."`
	Subnet        string   `toml:"subnet" comment:"IPv4 subnet of the default network. Empty: from the pools."`
	Pools         []Pool   `toml:"pools" comment:"Where subnets are taken from."`
	IPv6          bool     `toml:"ipv6" comment:"Networks have IPv6 besides IPv4 when neither --ipv6 nor --ipv6=false is given and this host has it."`
	PoolV6        string   `toml:"pool-v6" comment:"IPv6 prefix that /64 subnets are taken from. Empty: a stable ULA made from the machine id."`
	HostBinding   string   `toml:"host-binding" comment:"Address that ports are published on when none is named. Empty: all of both families."`
	DNS           []string `toml:"dns" comment:"Name servers for containers. Empty: those of the host's resolv.conf."`
	DNSSearch     []string `toml:"dns-search"`
	DNSOptions    []string `toml:"dns-options"`
	ResyncSeconds int      `toml:"resync-seconds" comment:"How often the kernel is compared with the records when nothing happens."`
	CNIPluginDirs []string `toml:"cni-plugin-dirs" comment:"Where networks of the driver cni look for plugins, in order."`
	CNIConfDirs   []string `toml:"cni-conf-dirs" comment:"Where they look for configurations that are given by name. GC is not used with what is there: other runtimes may share it."`
	CNITimeout    int      `toml:"cni-timeout-seconds" comment:"How long one plugin may run."`
}

// Cluster is what concerns clusters of hosts. Being in one is not configured: isle cluster
// init and join bring a host into one.
type Cluster struct {
	Advertise    string   `toml:"advertise" comment:"Address that other hosts reach this one at. Empty: that of the route to them."`
	Port         uint16   `toml:"port" comment:"TCP port that hosts join at."`
	ClientPort   uint16   `toml:"client-port" comment:"TCP port of the cluster's memory (etcd), for all hosts."`
	PeerPort     uint16   `toml:"peer-port" comment:"TCP port of the cluster's memory, for its members among each other."`
	SealPort     uint16   `toml:"wireguard-port" comment:"UDP port of encrypted networks; while this host's key for them is changed the next one too."`
	KeyDays      int      `toml:"wireguard-key-days" comment:"How old this host's key for encrypted networks gets before it is changed for another, without a pause. 0: it is changed by isle cluster key --rotate alone."`
	LeaseSeconds int      `toml:"lease-seconds" comment:"How long a host may be silent before the others take it for dead."`
	Etcd         []string `toml:"etcd" comment:"URLs of an etcd that others run. Empty: the first hosts of a cluster run one inside of isled."`
	EtcdPrefix   string   `toml:"etcd-prefix" comment:"Of all keys in an etcd that others run."`
	EtcdCA       string   `toml:"etcd-ca" comment:"File with the certificates that it is trusted by."`
	EtcdCert     string   `toml:"etcd-cert" comment:"File with this host's certificate for it."`
	EtcdKey      string   `toml:"etcd-key" comment:"File with the certificate's key."`
	EtcdUser     string   `toml:"etcd-user"`
	EtcdPassword string   `toml:"etcd-password-file" comment:"File with the user's password."`
}

// Pool is a prefix cut into subnets of Size bits.
type Pool struct {
	Base netip.Prefix `toml:"base"`
	Size int          `toml:"size"`
}

// Default is the configuration of a host without a file.
func Default() Config {
	return Config{
		DataDir:  "/var/lib/isle",
		RunDir:   "/run/isle",
		Group:    "isle",
		LogLevel: "info",
		Network: Network{
			Table:      "isle",
			LinkPrefix: "isle",
			LinkGroup:  0x15e,
			GuardMark:  1 << 27,
			Bridge:     "isle0",
			Pools: []Pool{
				{netip.MustParsePrefix("172.17.0.0/16"), 16}, {netip.MustParsePrefix("172.18.0.0/16"), 16},
				{netip.MustParsePrefix("172.19.0.0/16"), 16}, {netip.MustParsePrefix("172.20.0.0/14"), 16},
				{netip.MustParsePrefix("172.24.0.0/14"), 16}, {netip.MustParsePrefix("172.28.0.0/14"), 16},
				{netip.MustParsePrefix("192.168.0.0/16"), 20},
			},
			IPv6:          true,
			ResyncSeconds: 300,
			CNIPluginDirs: []string{"/opt/cni/bin", "/usr/lib/cni"},
			CNIConfDirs:   []string{"/etc/cni/net.d"},
			CNITimeout:    30,
		},
		Cluster:         Cluster{Port: 2377, ClientPort: 2379, PeerPort: 2380, SealPort: 51871, KeyDays: 30, LeaseSeconds: 10, EtcdPrefix: "/isle"},
		ShutdownTimeout: 10,
	}
}

// Load reads path over the defaults. A missing file is no error when it is
// the standard one. Unknown keys are errors: they are typing mistakes.
func Load(path string) (Config, error) {
	c := Default()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && path == File {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return c, fmt.Errorf("configuration %s: unknown keys:\n%s", path, strict.String())
		}
		if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, _ := wrong.Position()
			return c, fmt.Errorf("configuration %s:%d: %w", path, row, err)
		}
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// Socket is the unix socket that the programs on this machine use.
func (c Config) Socket() string { return filepath.Join(c.RunDir, "isle.sock") }

// String is c as a file.
func (c Config) String() string {
	b, err := toml.Marshal(c)
	if err != nil {
		return "# " + err.Error()
	}
	return string(b)
}
