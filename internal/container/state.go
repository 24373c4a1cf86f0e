package container

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// State is where a container is in its life.
type State struct {
	Status     container.ContainerState
	Pid        int
	ExitCode   int
	Error      string
	OOMKilled  bool
	StartedAt  time.Time
	FinishedAt time.Time
	Health     *container.Health
}

// next are the allowed steps.
//
//	created ─► running ◄─► paused
//	   │        │  ▲ ▲       │
//	   │        ▼  │ └─ restarting ◄─ running, exited
//	   │      exited ◄───────┘
//	   ▼        ▼
//	  removing ─► (gone) or dead
var next = map[container.ContainerState][]container.ContainerState{
	container.StateCreated:    {container.StateRunning, container.StateExited, container.StateRemoving},
	container.StateRunning:    {container.StatePaused, container.StateExited, container.StateRestarting, container.StateRemoving},
	container.StatePaused:     {container.StateRunning, container.StateExited, container.StateRestarting, container.StateRemoving},
	container.StateRestarting: {container.StateRunning, container.StateExited, container.StateRemoving},
	container.StateExited:     {container.StateRunning, container.StateRestarting, container.StateRemoving},
	container.StateRemoving:   {container.StateDead},
	container.StateDead:       {container.StateRemoving},
}

// To moves s to another status; a step that is not in the drawing is an error
// of class FailedPrecondition.
func (s *State) To(to container.ContainerState) error {
	if s.Status == to {
		return nil
	}
	if !slices.Contains(next[s.Status], to) {
		return fmt.Errorf("container is %s and cannot become %s: %w", s.Status, to, errdefs.ErrFailedPrecondition)
	}
	s.Status = to
	return nil
}

// Alive reports whether the container has a process.
func (s State) Alive() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused
}
