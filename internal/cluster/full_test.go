package cluster

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"isle/internal/fabric"
)

// TestFull: a cluster's memory that has no room left says so, as do the changes that it
// refuses.
func TestFull(t *testing.T) {
	l := newLab(t)
	a := l.host()
	a.init()
	l.eventually("it is alive", a.alive(1))
	s, err := a.current()
	l.must(err)
	alarms := pb.NewMaintenanceClient(s.client.ActiveConnection())
	_, err = alarms.Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: s.member.ID(), Alarm: pb.AlarmType_NOSPACE})
	l.must(err)
	st, err := a.Status(t.Context())
	if err != nil || !st.Members[0].Full || !strings.Contains(st.Problem, "full") {
		t.Errorf("%+v, %v", st, err)
	}
	_, err = a.Directory().CreateNetwork(t.Context(), fabric.Network{ID: "n", Name: "n"}, []fabric.Range{{First: 7, Last: 9}})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("a change is refused with %v", err)
	}
}
