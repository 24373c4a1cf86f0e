package cluster

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/pki"
	"isle/internal/store/etcd"
)

// malformed: what cannot be read in etcd is told of on each host, and everything else goes
// on; when it is gone nobody complains any more.
func malformed(s *site) {
	h3 := s.all[2]
	c, err := s.etcd(h3)
	s.must(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	bad := map[string]string{
		"fabric/host/x": `{"ID":"x"`, "fabric/host/y": `{"ID":"y","Name":"y","Addr":"banana"}`, "fabric/network/x": "\x00\xff", "fabric/network/y": `{"ID":"y","Name":"y","VNI":7,"Record":[]}`,
		"fabric/network/z":  `{"ID":"z","Name":"z","VNI":8,"Record":{"ID":"z","Name":"z","Driver":"bridge","Scope":"global","Pools":[{"Subnet":"10.99.0.0/33"}]}}`,
		"fabric/endpoint/x": `{"ID":"x","Network":"app","Host":"x","Addrs":["10.70.0.300/24"]}`, "fabric/endpoint/y": strings.Repeat("[", 1<<16), "fabric/unheard/of": `{}`,
		"addr/x/y": "", "subnet/x": `5`, "vni/x": "y", "member/x": `{"ID":"y"}`, "removed/x": `[]`, "name/network/": "",
	}
	for k, v := range bad {
		_, err := c.Put(ctx, "/isle/"+k, v)
		s.must(err)
	}
	for _, h := range s.all {
		h.eventually("it tells what it cannot read", func() bool {
			st := h.status()
			return len(st.Ignored) == 8 && strings.Contains(st.Problem, "cannot be read") && st.Quorum
		})
	}
	s.all[4].run("all-the-same")
	s.gathered(s.all...)
	s.all[4].Isle(s.t, "rm", "-f", "all-the-same")
	for k := range bad {
		_, err := c.Delete(ctx, "/isle/"+k)
		s.must(err)
	}
	for _, h := range s.all {
		s.healthy(h)
	}
	s.model(h3, s.all...)
}

// etcd is a client with a host's own certificate.
func (s *site) etcd(at *host) (*clientv3.Client, error) {
	id, err := pki.Load(filepath.Join(at.Dir, "data", "cluster"))
	if err != nil {
		return nil, err
	}
	return etcd.Dial{Endpoints: []string{"https://" + at.addr() + ":2379"}, TLS: id.ClientTLS()}.Open()
}

// subnetsOfHosts: no network has an address of a host, wherever that is.
func subnetsOfHosts(s *site) {
	h1 := s.all[0]
	h1.refused("of this host", "network", "create", "-d", "overlay", "--subnet", s.here("10.$N.1.0/24"), "under")
	h1.refused("of host "+s.all[2].name+" of the cluster", "network", "create", "-d", "overlay", "--subnet", s.here("10.$N.2.0/30"), "under")
}
