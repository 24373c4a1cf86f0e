package host_test

import (
	"testing"

	"isle/internal/netspec"
	"isle/internal/network/driver/drivertest"
	"isle/internal/network/driver/host"
)

func TestConformance(t *testing.T) { drivertest.Run(t, host.Driver{}) }

func TestMakesNothing(t *testing.T) {
	s, n := netspec.State{}, drivertest.Network(host.Driver{}, nil, true, false)
	err := host.Driver{}.Plan(s, n, nil, drivertest.Host)
	if err != nil || len(s) != 0 {
		t.Errorf("plan = %v, %v; want nothing", s, err)
	}
}
