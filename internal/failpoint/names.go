package failpoint

// The points, by verb, in the order in which a verb passes them. The crash test
// walks All; failpoint_test.go holds that each is used, and no other.
const (
	CreateBeforeRootfs = "engine/create/before-rootfs"
	CreateAfterRootfs  = "engine/create/after-rootfs"
	CreateAfterVolumes = "engine/create/after-volumes"
	CreateAfterRecord  = "engine/create/after-record"

	StartBefore       = "engine/start/before"
	StartAfterVolumes = "engine/start/after-volumes"
	StartAfterNetwork = "engine/start/after-network"
	StartAfterFiles   = "engine/start/after-files"
	StartAfterBundle  = "engine/start/after-bundle"
	StartAfterCreate  = "engine/start/after-create"
	StartAfterStart   = "engine/start/after-start"
	StartAfterRecord  = "engine/start/after-record"

	StopBeforeSignal = "engine/stop/before-signal"
	StopAfterSignal  = "engine/stop/after-signal"

	ExitBeforeRecord  = "engine/exit/before-record"
	ExitAfterRecord   = "engine/exit/after-record"
	ExitAfterRuntime  = "engine/exit/after-runtime"
	ExitAfterNetwork  = "engine/exit/after-network"
	ExitAfterTeardown = "engine/exit/after-teardown"

	RemoveAfterMark    = "engine/remove/after-mark"
	RemoveAfterNetwork = "engine/remove/after-network"
	RemoveAfterRootfs  = "engine/remove/after-rootfs"
	RemoveAfterFiles   = "engine/remove/after-files"
	RemoveAfterVolumes = "engine/remove/after-volumes"
	RemoveAfterRecord  = "engine/remove/after-record"
)

// All are the points that there are.
func All() []string {
	return []string{
		CreateBeforeRootfs, CreateAfterRootfs, CreateAfterVolumes, CreateAfterRecord,
		StartBefore, StartAfterVolumes, StartAfterNetwork, StartAfterFiles, StartAfterBundle, StartAfterCreate, StartAfterStart, StartAfterRecord,
		StopBeforeSignal, StopAfterSignal,
		ExitBeforeRecord, ExitAfterRecord, ExitAfterRuntime, ExitAfterNetwork, ExitAfterTeardown,
		RemoveAfterMark, RemoveAfterNetwork, RemoveAfterRootfs, RemoveAfterFiles, RemoveAfterVolumes, RemoveAfterRecord,
	}
}
