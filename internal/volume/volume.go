// Package volume keeps named volumes: directories below the data directory,
// or, with the local driver's options type, o and device, mounts.
package volume

import "github.com/moby/moby/api/types/volume"

// Anonymous is the label that marks a volume without a name given by a person.
const Anonymous = "com.docker.volume.anonymous"

// Record is what is stored of a volume.
type Record struct {
	volume.Volume
	// Users are who a volume with options is mounted for.
	Users []string `json:",omitempty"`
}
