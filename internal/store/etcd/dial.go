package etcd

import (
	"crypto/tls"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Dial says how an etcd is reached.
type Dial struct {
	Endpoints      []string // URLs; at least one
	TLS            *tls.Config
	User, Password string
}

// Open returns a client. It waits for nobody: an etcd that is not there yet is tried
// again every second, and one that does not answer any more is noticed after some.
func (d Dial) Open() (*clientv3.Client, error) {
	again := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: d.Endpoints, TLS: d.TLS, Username: d.User, Password: d.Password,
		DialKeepAliveTime: 3 * time.Second, DialKeepAliveTimeout: 3 * time.Second, PermitWithoutStream: true,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 2 * time.Second})},
		Logger:      zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %q: %w", d.Endpoints, err)
	}
	return c, nil
}
