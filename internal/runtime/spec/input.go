package spec

import (
	"isle/internal/container"
	"isle/internal/runtime/cgroup"
)

// Input is all that a container's configuration is a function of.
type Input struct {
	Record  container.Record // its Config is that of the image and the user, merged
	Host    Host             // facts of this machine
	Rootfs  string           // root.path; relative paths are relative to the bundle
	User    User             // Config.User and Host.GroupAdd, resolved
	Devices Devices          // what FindDevices found for Record.Host

	// Mounts are the record's, with Source set to what is to be bound now
	// (a volume's path, a subpath included).
	Mounts []container.Mount
	Files  Files
	// Shm is a directory to be seen at /dev/shm, for a memory that is shared
	// with the host or with other containers; "": a tmpfs of the container's own.
	Shm string
	// Init is the program for --init, on the host.
	Init string

	Namespaces Namespaces
	Cgroup     cgroup.Group
	// Ulimits are the defaults of the configuration, by name.
	Ulimits map[string]Limit
}

// Files are made by the engine for each container and bound into it. An empty
// one is left out.
type Files struct{ Hosts, Hostname, ResolvConf string }

// Namespaces are the paths of namespaces to join. Net is that of the sandbox
// or of another container; the others are set for "container:X".
type Namespaces struct{ Net, PID, IPC string }

// Limit is a resource limit; Unlimited is no limit.
type Limit struct{ Soft, Hard uint64 }

// Unlimited is a Limit that is none.
const Unlimited = ^uint64(0)

// User is who the container's process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // additional ones, GID included
	Home     string
}

// Host is what this machine can do. See DetectHost.
type Host struct {
	Cgroup            cgroup.Host
	Caps              []string          // what this process may give, "CAP_…"
	HardLimits        map[string]uint64 // hard limits of this process, by ulimit name
	OOMScoreAdj       int               // of this process
	Seccomp           bool
	AppArmor          bool
	AppArmorProfiles  []string // that are loaded
	CgroupNS          bool
	RecursiveReadOnly bool     // mount_setattr(2)
	ThermalThrottle   []string // directories to mask, one for each processor
}
