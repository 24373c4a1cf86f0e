// Package container holds the record of a container and its state machine.
// Values only: nothing here touches the machine.
package container

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record is all that is kept of a container. It is stored as it stands.
type Record struct {
	ID       string
	Name     string // without the slash
	Created  time.Time
	Image    string // as the user named it
	ImageID  string // "sha256:…"
	Manifest *ocispec.Descriptor
	Platform string // "linux/amd64"
	Path     string // argv[0] of the container's process
	Args     []string
	Config   *container.Config     // merged with that of the image
	Host     *container.HostConfig // as given, defaults filled in
	// Networks are the networks the container is to be on, by the network's
	// name, with the user's wishes in the configuration fields and, once
	// connected, what they became in the operational ones.
	Networks map[string]*network.EndpointSettings
	// MACs are the addresses that the user asked for, by the network's name:
	// EndpointSettings.MacAddress is what came of it.
	MACs map[string]network.HardwareAddr
	// NetOwner is the container in whose network namespace this run is, when that
	// is another one: the way to it may be gone before the run ends.
	NetOwner        string
	Ports           network.PortMap `json:"-"` // as settled and shown; of a run, and the network's to know
	Mounts          []Mount
	Runtime         string // name of the OCI runtime
	State           State
	RestartCount    int
	ManuallyStopped bool // by a person: no restart policy but "always" brings it back, and that at the next start of isled
	RemoveVolumes   bool // anonymous volumes go with it
}

// Mount is one mount of a container as it was settled at create time.
type Mount struct {
	container.MountPoint
	Subpath                string
	Anonymous              bool // a volume made for this container
	NoCopy                 bool // a volume is not filled from the image
	Created                bool // bind source was made by us (never removed)
	MayCreate              bool // a missing bind source is made, a directory
	TmpfsOpts              []string
	NonRecursive           bool
	ReadOnlyNonRecursive   bool
	ReadOnlyForceRecursive bool
}
