package container_test

import (
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"

	"isle/internal/container"
)

func TestTo(t *testing.T) {
	for _, tt := range []struct {
		from, to api.ContainerState
		ok       bool
	}{
		{api.StateCreated, api.StateRunning, true},
		{api.StateRunning, api.StatePaused, true},
		{api.StatePaused, api.StateRunning, true},
		{api.StateRunning, api.StateExited, true},
		{api.StateExited, api.StateRunning, true},
		{api.StateRestarting, api.StateRunning, true},
		{api.StateRemoving, api.StateDead, true},
		{api.StateDead, api.StateRemoving, true},
		{api.StateRunning, api.StateRunning, true},
		{api.StateCreated, api.StatePaused, false},
		{api.StateExited, api.StatePaused, false},
		{api.StateRemoving, api.StateRunning, false},
		{api.StateDead, api.StateRunning, false},
	} {
		s := container.State{Status: tt.from}
		err := s.To(tt.to)
		if (err == nil) != tt.ok {
			t.Errorf("%s to %s: %v", tt.from, tt.to, err)
		}
		if !tt.ok && (!errdefs.IsFailedPrecondition(err) || s.Status != tt.from) {
			t.Errorf("%s to %s refused: %v, is %s now", tt.from, tt.to, err, s.Status)
		}
	}
}

func TestAlive(t *testing.T) {
	for s, want := range map[api.ContainerState]bool{
		api.StateCreated: false, api.StateRunning: true, api.StatePaused: true, api.StateRestarting: false,
		api.StateExited: false, api.StateRemoving: false, api.StateDead: false,
	} {
		if got := (container.State{Status: s}).Alive(); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}
